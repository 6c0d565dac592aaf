"""What the operating system refuses, as diagnostics; and names from inputs made safe to print."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ...compiler.checkpoint.catalog import CatalogError
from ...grammar.diagnostic import MergecError, error
from ...grammar.render import escape

_FREE = "free some, or give a path on another disk, and run again"
_FIXES = {
    errno.EFBIG: 'smaller files: `output(shard_size="1GB")`; or lift the limit (`ulimit -f`)',
    errno.EROFS: "give a path that can be written to",
    errno.EACCES: "give a path that you may write to",
    errno.EPERM: "give a path that you may write to",
    errno.EIO: "the disk fails: look at the system's log, or give a path on another disk",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "allow more open files: `ulimit -n 1024`",
    errno.ENFILE: "close other programs: the whole system has too many files open",
}
"""What to do about what the system refuses."""

_LONGEST = 200


def show(text: str) -> str:
    """`text` with everything unprintable escaped, and shortened where it is very long.

    >>> show("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    short = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return escape(short)


def unreadable(path: str, error: OSError) -> CatalogError:
    """The error for a file of an input that can't be read while compiling."""
    return CatalogError("E0403", f"can't read `{show(path)}`: {reason(error)}", file=path)


def file_fault(code: str, message: str, path: str, *help: str) -> MergecError:
    """An input that failed during the run, or a target that can't be written."""
    return error(code, message, help=help, file=path)


def unwritable(path: str, error: OSError) -> MergecError:
    """The error for a file of the output that can't be written: E0609 for a full disk, else
    E0610."""
    if error.errno == errno.ENOSPC:
        return file_fault("E0609", f"no space left for `{show(path)}`", path, _FREE)
    if error.errno == errno.EDQUOT:
        return file_fault("E0609", f"your quota is used up, at `{show(path)}`", path, _FREE)
    fixes = (_FIXES[error.errno],) if error.errno in _FIXES else ()
    return file_fault("E0610", f"can't write `{show(path)}`: {reason(error)}", path, *fixes)


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns what the system refuses within into MergecError, as said of `path`."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def reason(error: OSError) -> str:
    """What the system said, in lower case and without the path."""
    return (error.strerror or str(error)).lower()
