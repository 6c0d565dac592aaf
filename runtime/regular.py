"""Opening a regular file of an input while compiling."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ..compiler.catalog import CatalogError
from .faults import unreadable


@contextmanager
def opened(path: str, code: str) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of the regular file at `path`, open within, and its status.

    Raises CatalogError: `code` for anything but a regular file, E0403 where it, or what is done within, can't be read.
    """
    try:
        # without O_NONBLOCK, opening a pipe would wait for its writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CatalogError(code, "not a regular file", file=path)
        yield descriptor, status
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(descriptor)
