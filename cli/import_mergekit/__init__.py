"""`mergec import`: mergekit configurations to recipes. command.py is the command; configuration -> text is writing.py."""
