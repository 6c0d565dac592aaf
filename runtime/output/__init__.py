"""The target on disk.

In: bytes for places in files. Out: a complete folder or file, put in place by one rename, or
nothing; and what may be replaced by it.
"""

__all__ = ["conditions", "target", "unfinished", "writer"]
