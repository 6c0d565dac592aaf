"""The commands, one a file.

In: words of the command line. Out: an exit status.
"""

__all__ = ["emit", "fmt", "inspect", "summary", "verify"]
