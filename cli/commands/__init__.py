"""The commands, one per file.

In: words of the command line. Out: an exit status.
"""

__all__ = ["fmt", "inspect", "merge", "verify"]
