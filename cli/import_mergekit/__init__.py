"""`mergec import`: configurations of mergekit to recipes.

In: a YAML file. Out: a recipe. The command is in command.py; importer.py comes next.
"""

__all__ = ["command", "recipe_text"]
