"""The commands, one a file.

In: words of the command line. Out: an exit status.
"""

__all__ = ["fmt", "inspect", "merge", "verify"]
