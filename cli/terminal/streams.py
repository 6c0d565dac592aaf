"""The standard streams, in whatever state the caller left them: closed, full, without a reader, not
in UTF-8."""

from __future__ import annotations

import contextlib
import io
import os
import sys

from ...grammar.diagnostic import error
from ...grammar.render import escape
from ...grammar.source import Source


def prepare() -> None:
    """Makes all three usable: a closed one leads nowhere, and what one can't spell is written as an
    escape."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # else a weight file might get this number, and what is printed would go into it
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str, *, exact: bool = False) -> None:
    """Prints what was asked for on standard output, a line end after it.

    What could move a cursor or hide is made visible, in case that someone who put a name from an
    input into the text forgot to; but for `exact` text, which has escapes of its own (JSON) or is a
    recipe.

    Raises MergecError E0640 where it can't be written, BrokenPipeError where the reader is gone.
    """
    try:
        print(text if exact else "\n".join(map(escape, text.split("\n"))), flush=True)
    except BrokenPipeError:
        raise
    except OSError as refused:
        silence()
        message = f"standard output can't be written: {(refused.strerror or 'unknown').lower()}"
        raise error("E0640", message) from None


def silence() -> None:
    """Lets standard output lead nowhere: what it still holds would fail once more when the
    interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def tell(text: str) -> None:
    """Prints on standard error. That nobody reads it is no reason to stop."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def piped_recipe() -> Source:
    """The recipe on standard input: UTF-8, whatever the locale. Raises MergecError (E0403)."""
    # brings the parser, which `--help` has no use for
    from ...runtime.catalog.recipes import MAX_RECIPE, decode_recipe

    buffer = getattr(sys.stdin, "buffer", None)
    if buffer is None:
        return Source("<stdin>", sys.stdin.read())
    return decode_recipe("<stdin>", buffer.read(MAX_RECIPE + 1))
