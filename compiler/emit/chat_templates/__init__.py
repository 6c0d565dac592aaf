"""Chat templates that `output(chat_template="…")` knows by name."""
