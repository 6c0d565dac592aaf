"""System calls that Python lacks, or that take more than one of its own.

Those that not every system has say whether they did their work; none of them is needed for a right
result.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_SYNC_FILE_RANGE_WRITE = 2
_FICLONERANGE = 0x4020940D


def reserve(descriptor: int, size: int) -> bool:
    """Reserves disk blocks for `size` bytes and makes the file that long.

    False where the file system can't; the library's own fallback, which writes to every block, is
    avoided. Raises OSError where the space is not there.
    """
    return size > 0 and _call("fallocate", descriptor, ctypes.c_int(0), ctypes.c_int64(0), ctypes.c_int64(size))


def start_writeback(descriptor: int) -> bool:
    """Starts writing the file's dirty pages to disk without waiting for them."""
    try:
        return _call(
            "sync_file_range", descriptor, ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE)
        )
    except OSError:
        return False  # a fault in writing shows again in fsync, where it counts


def share(source: int, offset: int, target: int, start: int, nbytes: int) -> bool:
    """Lets `target` have `nbytes` bytes of `source` on the same blocks of the disk; False where the
    file system can't.

    All three figures are multiples of the file system's block.
    """
    try:
        import fcntl
    except ImportError:
        return False  # another system
    try:
        fcntl.ioctl(target, _FICLONERANGE, struct.pack("qQQQ", source, offset, nbytes, start))
    except OSError:
        return False  # copying meets the same fault, where it is one, and says what it is
    return True


def exchange(first: str, second: str) -> bool:
    """Swaps two existing paths at one instant; False where the file system can't. Raises
    OSError."""
    return _call(
        "renameat2",
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(first)),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(second)),
        ctypes.c_uint(_RENAME_EXCHANGE),
    )


def move(source: str, target: str) -> None:
    """Renames, where nothing is at `target`. Raises OSError; FileExistsError where something is."""
    if not _call(
        "renameat2",
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(source)),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_RENAME_NOREPLACE),
    ):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(source, target)


def sync(path: str) -> None:
    """Waits until the file or folder at `path` is on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: memoryview, start: int) -> None:
    """Writes all of `data` (contiguous bytes) at byte `start`. Raises OSError."""
    done = 0
    while done < data.nbytes:
        done += os.pwrite(descriptor, data[done:], start + done)


def read_all(descriptor: int, view: memoryview, start: int) -> int:
    """Fills `view` (contiguous bytes) from byte `start` on; how many bytes that were, fewer where
    the file ends before.

    Raises OSError.
    """
    done = 0
    while done < view.nbytes and (count := os.preadv(descriptor, [view[done:]], start + done)):
        done += count
    return done


def anonymous(nbytes: int) -> mmap.mmap:
    """Memory of this process alone that begins a page, straight from the system, so that it goes
    back to it when it is dropped.

    It is made of small pages: of an arena the compiled kernels touch a part, and large pages, which
    make them no faster, would have all of it resident. A process that is forked doesn't get it:
    neither are its pages then copied when they are next written to, nor can that happen while the
    disk takes from them what is written directly.

    Raises MemoryError.
    """
    try:
        region = mmap.mmap(-1, max(1, nbytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{nbytes} bytes") from error
    for advice in ("MADV_NOHUGEPAGE", "MADV_DONTFORK"):
        with suppress(AttributeError, OSError):  # a system without it
            region.madvise(getattr(mmap, advice))
    return region


def address(data: memoryview) -> int:
    """Where contiguous bytes lie, as long as the caller keeps them; a copy's place is never
    given."""
    if not data.readonly:
        return ctypes.addressof(ctypes.c_char.from_buffer(data))
    # only numpy tells it of what can't be written to
    import numpy

    place: int = numpy.frombuffer(data, numpy.uint8).ctypes.data
    return place


@cache
def _function(name: str) -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError, TypeError):
        return None  # another libc or another system
    return function


def _call(name: str, *arguments: object) -> bool:
    function = _function(name)
    while function is not None:
        if function(*arguments) == 0:
            return True
        number = ctypes.get_errno()
        if number in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ESPIPE):
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return False
