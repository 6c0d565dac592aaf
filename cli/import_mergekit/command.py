"""`mergec import`: a mergekit configuration as a recipe; and the same in memory, for merging at
once."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from ...compiler.checkpoint.catalog import Catalog
from ...grammar.diagnostic import MergecError, error
from ...grammar.error_codes import Exit
from ...grammar.parse import parse
from ...grammar.source import Source
from ...runtime.catalog.local import LocalCatalog
from ...runtime.catalog.recipes import read_source
from ..terminal.arguments import ALLOW_PICKLE, Parser
from ..terminal.atomic_file import write_atomically
from ..terminal.reporter import Reporter
from ..terminal.streams import piped_recipe, say
from .importer import import_text
from .recipe_text import Imported


def import_file(path: str, catalog: Catalog, target: Path | None = None) -> tuple[Source, Imported]:
    """The recipe of a file (`-`: standard input), its paths relative to `target`, the file's own
    folder by default.

    The source is the recipe under the YAML file's name, ready to be compiled. Raises MergecError.
    """
    source = piped_recipe() if path == "-" else read_source(Path(path))
    imported = import_text(source, catalog, target or Path(path).parent)
    return Source(source.name, imported.text), imported


def parse_words(words: list[str]) -> Namespace:
    """The arguments of `mergec import`. Raises UsageError."""
    p = Parser(
        prog="mergec import",
        description="Turns a configuration of mergekit into a recipe that gives the same numbers.",
        epilog="Relative paths of models are looked for in the configuration's folder, then in the current one.",
    )
    p.add_argument("config", metavar="CONFIG", help="a YAML file of mergekit; `-` is standard input")
    p.add_argument("-o", "--output", metavar="RECIPE", help="where to write the recipe (default: standard output)")
    p.add_argument("--force", action="store_true", help="replace a recipe that exists")
    p.add_argument("--strict", action="store_true", help="fail where something is passed over")
    p.add_argument("--allow-pickle", action="store_true", help=ALLOW_PICKLE)
    p.shared()
    return p.parse_args(words)


def run(given: Namespace, reporter: Reporter) -> Exit:
    """Writes the recipe, or prints it. Raises MergecError."""
    target = Path(given.output).parent if given.output else Path()
    _, imported = import_file(given.config, LocalCatalog(allow_pickle=given.allow_pickle), target)
    reporter.show(imported.warnings)
    if imported.warnings and given.strict:
        return Exit.RECIPE
    if given.output:
        _write(Path(given.output), imported.text, given.force)
    else:
        say(imported.text.removesuffix("\n"), exact=True)
    return Exit.DONE


def _write(path: Path, text: str, force: bool) -> None:
    """Writes the recipe's file, completely or not at all.

    Raises MergecError: E0601 where it exists, E0608 where it is no recipe that is to be replaced,
    E0610 where it can't be written.
    """
    if os.path.lexists(path):
        replaceable, other = _is_recipe(path), "give another path"
        if not force:
            help_ = (f"{other}, or replace it with `--force`",) if replaceable else (other,)
            raise error("E0601", "there is something already", help=help_, file=str(path), exit=Exit.RECIPE)
        if not replaceable:
            message = "what is there is not replaced: it is no recipe"
            raise error("E0608", message, help=other, file=str(path))
    write_atomically(path, text)


def _is_recipe(path: Path) -> bool:
    """Whether there is a file at `path` itself, behind no link, that is named as a recipe or reads
    like one."""
    if path.is_symlink() or not path.is_file():
        return False
    if path.suffix == ".mrg":
        return True
    try:
        return bool(parse(read_source(path)).statements)
    except MergecError:
        return False
