"""Checkpoints, recipes and installed extensions on this machine.

The `Catalog` that the compiler is handed by `mergec`: paths in, headers, small documents, texts and
signatures out.
"""

__all__ = ["documents", "extension_code", "extensions", "folders", "local", "recipes", "weights"]
