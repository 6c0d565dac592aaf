"""The command line: `main.py` says what was asked for, has it done, and prints diagnostics.

In: words. Out: text, and an exit status.
"""

__all__ = ["main"]
