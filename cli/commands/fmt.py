"""`mergec fmt`: formats recipes in place, or says which are not formatted."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from ...grammar.ast import Module
from ...grammar.diagnostic import MergecError, error
from ...grammar.error_codes import Exit
from ...grammar.parse import parse
from ...grammar.render import escape
from ...grammar.source import Source
from ...runtime.catalog.recipes import read_source
from ..formatter.format import format_module
from ..formatter.same_tree import same
from ..terminal.arguments import Parser
from ..terminal.atomic_file import write_atomically
from ..terminal.reporter import Reporter
from ..terminal.streams import piped_recipe, say, tell


def parse_words(words: list[str]) -> Namespace:
    """The arguments of `mergec fmt`. Raises UsageError."""
    p = Parser(prog="mergec fmt", description="Formats recipes in place; comments stay.")
    p.add_argument(
        "files", nargs="+", metavar="FILE", help="recipes; `-` reads standard input and writes standard output"
    )
    p.add_argument("--check", action="store_true", help="change nothing, fail where a file is not formatted")
    p.shared()
    return p.parse_args(words)


def run(given: Namespace, reporter: Reporter) -> Exit:
    """Formats files; the exit status is 1 where one is wrong, or with `--check` not formatted."""
    status = Exit.DONE
    for name in given.files:
        try:
            source = piped_recipe() if name == "-" else read_source(Path(name))
            text = formatted(source)
            if not given.check:
                _write(name, source, text)
            elif text != source.text:
                # standard error has nothing but diagnostics where they are read by a program
                (say if reporter.as_json else tell)(f"{escape(name)}: not formatted")
                status = max(status, Exit.RECIPE)
        except MergecError as error:
            reporter.show(error.diagnostics)
            status = max(status, error.exit)
    return status


def _write(name: str, source: Source, text: str) -> None:
    if name == "-":
        say(text.removesuffix("\n"), exact=True)
    elif text != source.text:
        # a recipe that is linked to is formatted where it is
        write_atomically(Path(os.path.realpath(name)), text)
        say(f"formatted {name}")


def formatted(source: Source) -> str:
    """A recipe in its one layout, read again and found to say the same. Raises MergecError, E0114
    where it does not."""
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
            raise error("E0114", message, help=help_, file=source.name)
    return text


def _comments(module: Module) -> list[str]:
    return sorted(comment.text for comment in module.comments)
