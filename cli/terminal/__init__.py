"""What the command line reads and prints.

Options, columns, amounts, progress, and the standard streams in whatever state the caller left
them.
"""

__all__ = ["amounts", "arguments", "atomic_file", "columns", "progress", "reporter", "streams"]
