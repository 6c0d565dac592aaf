"""`mergec import`: configurations of mergekit to recipes. The command is in command.py; writing.py comes next."""
