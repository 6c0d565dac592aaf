ERRORS = {}
