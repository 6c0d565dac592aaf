"""Writing past the page cache, where the file system and the place allow it.

What a merge writes it doesn't read again. Written through the cache, each page must be found,
filled and written back later, which costs more than most merges compute and drives the inputs out
of memory. Written directly, a block goes from a lane's memory to the disk, and what is left for the
sync at the end is next to nothing.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

from ...compiler.plan.scratch import PAGE
from .descriptors import Descriptors
from .syscalls import anonymous, write_all

UNIT = PAGE
"""Bytes: where a direct write begins and how long it is are multiples of it. No file system in use
asks for more."""

LEAST = 1 << 17
"""Bytes that are worth a write of their own to the disk; fewer are better gathered by the cache."""

PIECE = 1 << 20
"""Bytes of a copy that pass through memory at a time."""


class Direct:
    """Direct writes to files by index, from any number of threads; `close` closes them.

    `open_` opens a file with flags besides those for writing; files whose system refuses direct
    writes are remembered.
    """

    def __init__(self, open_: Callable[[int, int], int], limit: int) -> None:
        self._flag: int = getattr(os, "O_DIRECT", 0)
        self._descriptors = Descriptors(lambda file: open_(file, self._flag), limit)
        self._buffers = threading.local()
        self._possible = bool(self._flag)

    def write(self, file: int, start: int, data: memoryview) -> bool:
        """Writes contiguous bytes at byte `start` of a file; False where that can't be done, and
        then it has to be done otherwise. Raises OSError for what really is wrong."""
        if not self._possible or start % UNIT or data.nbytes % UNIT or data.nbytes < LEAST:
            return False
        try:
            with self._descriptors.borrow(file) as descriptor:
                write_all(descriptor, data, start)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            self._possible = False  # a file system without direct writes, or one that requires more than UNIT
            return False
        return True

    def suits(self, start: int, nbytes: int) -> bool:
        """Whether a range could be written directly, but for its last bytes."""
        return self._possible and start % UNIT == 0 and nbytes >= LEAST

    def buffer(self) -> memoryview:
        """`PIECE` bytes of this thread's own, good for direct writes."""
        found: memoryview | None = getattr(self._buffers, "data", None)
        if found is None:
            found = self._buffers.data = memoryview(anonymous(PIECE))
        return found

    def close(self) -> None:
        self._descriptors.close()
