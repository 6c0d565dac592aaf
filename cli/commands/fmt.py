"""`mergec fmt`: formats recipes in place, or says which are not formatted."""

from __future__ import annotations

import os
from pathlib import Path

from ...grammar.ast import Module
from ...grammar.diagnostic import Diagnostic, Exit, MergecError
from ...grammar.parse import parse
from ...grammar.render import escape, render
from ...grammar.source import Source
from ...runtime.catalog.recipes import read_source
from ..formatter.format import format_module
from ..formatter.same_tree import same
from ..terminal.arguments import Parser
from ..terminal.streams import piped_recipe, say, tell
from ..terminal.whole_file import write_whole


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
    text = formatted(source)
    if check:
        if text != source.text:
            tell(f"{escape(name)}: not formatted")
        return text == source.text
    if name == "-":
        say(text.removesuffix("\n"), exact=True)
    elif text != source.text:
        # a recipe that is linked to is formatted where it is
        write_whole(Path(os.path.realpath(name)), text)
        say(f"formatted {name}")
    return True


def formatted(source: Source) -> str:
    """A recipe in its one layout, read again and found to say the same. Raises MergecError, E0114 where it does not."""
    module = parse(source)
    text = format_module(module)
    if text != source.text:
        try:
            again = parse(Source(source.name, text))
        except MergecError:
            again = None
        if again is None or not same(module.statements, again.statements) or _comments(module) != _comments(again):
            message = "formatted, this file would not say the same, so it is left as it is"
            help_ = "this is a bug in `mergec fmt`: please report it, with the file"
            raise MergecError(Diagnostic("E0114", message, help=(help_,), file=source.name), Exit.RUN)
    return text


def _comments(module: Module) -> list[str]:
    return sorted(comment.text for comment in module.comments)
