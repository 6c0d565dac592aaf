"""The command line: the command that was asked for, run; diagnostics printed; exit statuses.

Modules that take time to import are imported by the commands that need them.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..grammar.diagnostic import Diagnostic, MergecError, finding
from ..grammar.error_codes import Exit
from .terminal.arguments import COMMANDS, UsageError
from .terminal.reporter import Reporter, asked_for
from .terminal.streams import prepare, silence, tell


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status. Nothing but SystemExit for `--help` and
    `--version` is raised."""
    prepare()
    words = list(sys.argv[1:] if argv is None else argv)
    reporter = asked_for(words)
    try:
        _check_folder()
        command = _command(words[0] if words else "")
        given = command.parse_words(words[1:] if words and words[0] in COMMANDS else words)
        reporter = Reporter(given.error_format == "json", given.color)
        return int(command.run(given, reporter))
    except MergecError as error:
        reporter.show(error.diagnostics)
        return int(error.exit)
    except KeyboardInterrupt as interrupt:
        tell("\n  ".join(["mergec: interrupted", *getattr(interrupt, "__notes__", ())]))
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # the reader of our output is gone, as with `mergec --explain … | head`
        silence()
        return int(Exit.DONE)
    except Exception as error:
        if os.environ.get("MERGEC_TRACEBACK"):
            traceback.print_exc()
        unforeseen = _unforeseen(error)
    reporter.show([unforeseen])
    return int(Exit.RUN)


def _command(word: str) -> Any:
    """The module of a command, with `parse_words` and `run`; a word that names none is a recipe, or
    one's option."""
    if word == "fmt":
        from .commands import fmt

        return fmt
    if word == "import":
        from .import_mergekit import command

        return command
    if word == "inspect":
        from .commands import inspect

        return inspect
    if word == "verify":
        from .commands import verify

        return verify
    from .commands import merge

    return merge


def process() -> int:
    """`main` as all that a process does.

    At its end the interpreter would look through everything for garbage, three times over, which
    takes a tenth of a short run. What is frozen it leaves to the system.
    """
    try:
        return main()
    finally:
        gc.freeze()


def _check_folder() -> None:
    """Relative paths mean nothing in a folder that has been removed, and libraries fail there in
    their own ways."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current folder has been removed", "change to one that exists") from None


def _unforeseen(error: Exception) -> Diagnostic:
    """Errors that have no code of their own: what the system refused, or did not let us load, or
    else a bug."""
    if isinstance(error, MemoryError):
        return finding("E0003", "out of memory", help="give a budget: `--memory 1GiB`")
    if isinstance(error, ImportError):
        # some packages put a page of advice here
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "it gives no reason")
        help = "see that it is installed for this Python, and that no limit on memory or files is in the way"
        return finding("E0642", f"a library can't be loaded: {said}", help=help)
    if isinstance(error, OSError):
        path = error.filename if isinstance(error.filename, str) else None
        return finding("E0641", f"the system refuses: {(error.strerror or str(error)).lower()}", file=path)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
    help = "please report it with the recipe; MERGEC_TRACEBACK=1 shows the details"
    return finding("E0001", "this is a bug in mergec", notes=f"{type(error).__name__}: {error} ({where})", help=help)


if __name__ == "__main__":
    sys.exit(process())
