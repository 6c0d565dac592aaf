"""The operating system, for all who read and write.

Opening regular files and nothing else, reading by position, writing past the page cache, comparing;
what the system refuses comes out as a diagnostic.
"""

__all__ = ["compare", "descriptors", "direct", "faults", "inputs", "opening", "paths", "syscalls"]
