"""Opening regular files, and nothing else: a pipe would make its reader wait for ever, a device may
do anything."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ...compiler.checkpoint.catalog import CatalogError, InputFile
from .faults import unreadable

_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def is_short(error: OSError) -> bool:
    """Whether the system is short of something, which says nothing about the file."""
    return error.errno in _SHORT


class NotRegularError(OSError):
    """What is opened is there, and is no regular file."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EINVAL, "not a regular file", path)


def as_it_is(path: str, status: os.stat_result) -> InputFile:
    """The file at `path`, an absolute path, by its status."""
    return InputFile(
        path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, device=status.st_dev, inode=status.st_ino
    )


@contextmanager
def regular(path: str, flags: int = os.O_RDONLY) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of the regular file at `path`, open within, and its status. Raises OSError,
    NotRegularError too."""
    # without O_NONBLOCK, opening a pipe would wait for its other end
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotRegularError(path)
        yield descriptor, status
    finally:
        os.close(descriptor)


@contextmanager
def opened(path: str, code: str) -> Iterator[tuple[int, os.stat_result]]:
    """The same for a file of an input while compiling.

    Raises CatalogError: `code` for anything but a regular file, E0403 where it, or what is done
    within, can't be read.
    """
    try:
        with regular(path) as found:
            yield found
    except NotRegularError as error:
        raise CatalogError(code, "not a regular file", file=path) from error
    except OSError as error:
        raise unreadable(path, error) from error
