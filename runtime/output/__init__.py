"""The target on disk.

In: bytes for places in files. Out: a folder or file that is there whole, by one rename, or not at
all; and what may be replaced by it.
"""

__all__ = ["target", "unfinished", "writer"]
