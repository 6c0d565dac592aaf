"""Text files that are replaced completely or not at all."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from ...grammar.diagnostic import error


def write_atomically(path: Path, text: str) -> None:
    """Puts `text` at `path`; a file that is there keeps its mode, and its owner if it may. A link
    is replaced itself.

    Raises MergecError (E0610), also where something is there that is no regular file.
    """
    temporary = ""
    try:
        there = path.stat() if path.exists() else None
        if there is not None and not stat.S_ISREG(there.st_mode):
            raise OSError(errno.EINVAL, "what is there is no regular file")
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            if there is not None:
                with suppress(OSError):
                    os.fchown(file.fileno(), there.st_uid, there.st_gid)
            os.fchmod(file.fileno(), there.st_mode & 0o7777 if there is not None else 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as refused:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        message = f"can't write it: {(refused.strerror or 'unknown').lower()}"
        raise error("E0610", message, file=str(path)) from None
