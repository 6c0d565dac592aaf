"""Text files that are replaced whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from ..grammar.diagnostic import Diagnostic, Exit, MergecError


def write_whole(path: Path, text: str) -> None:
    """Puts `text` at `path`; a file that is there keeps its mode. Raises MergecError (E0610)."""
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(temporary, path.stat().st_mode & 0o7777 if path.exists() else 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        message = f"can't write it: {(error.strerror or 'unknown').lower()}"
        raise MergecError(Diagnostic("E0610", message, file=str(path)), Exit.RUN) from None
