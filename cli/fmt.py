"""`mergec fmt`: formats recipes in place, or says which are not formatted."""

from __future__ import annotations

from pathlib import Path

from ..grammar.diagnostic import Exit, MergecError
from ..grammar.parse import parse
from ..grammar.render import escape, render
from ..runtime.sources import read_source
from .arguments import Parser
from .format import format_module
from .streams import piped_recipe, say, tell
from .whole_file import write_whole


def format_files(words: list[str]) -> int:
    """Runs `mergec fmt`; the exit status is 1 where a file is wrong, or with `--check` not formatted."""
    p = Parser(prog="mergec fmt", description="Formats recipes in place; comments stay.")
    p.add_argument(
        "files", nargs="+", metavar="FILE", help="recipes; `-` reads standard input and writes standard output"
    )
    p.add_argument("--check", action="store_true", help="change nothing, fail where a file is not formatted")
    given = p.parse_args(words)
    status = Exit.DONE
    for name in given.files:
        try:
            if not _format(name, given.check):
                status = Exit.RECIPE
        except MergecError as error:
            tell(render(error.diagnostics).rstrip("\n"))
            status = max(status, error.exit)
    return int(status)


def _format(name: str, check: bool) -> bool:
    """Formats one file; False where `check` finds it not formatted."""
    source = piped_recipe() if name == "-" else read_source(Path(name))
    text = format_module(parse(source))
    if check:
        if text != source.text:
            tell(f"{escape(name)}: not formatted")
        return text == source.text
    if name == "-":
        say(text.removesuffix("\n"), exact=True)
    elif text != source.text:
        write_whole(Path(name), text)
        say(f"formatted {name}")
    return True
