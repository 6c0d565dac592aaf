"""The tables that are shipped are those of the grammar."""

from __future__ import annotations

from pathlib import Path

import lark
import pytest
from lark import Lark
from mergec.grammar import tables
from mergec.grammar.scan import scan
from mergec.grammar.source import Source

ROOT = Path(tables.__file__).parent.parent
GRAMMAR = (ROOT / "grammar" / "merge.lark").read_text("utf-8")
RECIPES = sorted([*ROOT.glob("stdlib/*.mrg"), *ROOT.glob("examples/**/*.mrg")])


def fresh() -> Lark:
    return Lark(GRAMMAR, start=tables.START, **tables.OPTIONS)


def test_they_are_those_of_this_grammar_with_whatever_lark() -> None:
    """After a change of merge.lark: `python -m mergec.grammar.tables > grammar/tables.json`."""
    shipped = (ROOT / "grammar" / "tables.json").read_text("utf-8")
    assert shipped == tables.tables_text()
    assert tables._read(GRAMMAR) is not None


def test_they_parse_as_the_grammar_does() -> None:
    ready, made = tables.parser("module"), fresh()
    for path in RECIPES:
        text = scan(Source(str(path), path.read_text("utf-8"))).text
        assert ready.parse(text) == made.parse(text)


def test_tables_of_another_grammar_do_not_count() -> None:
    assert tables._read(GRAMMAR + "\n// changed\n") is None


def test_a_lark_that_can_t_read_them_makes_the_parser_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: object) -> Lark:
        raise KeyError("Cannot find key for class")

    monkeypatch.setattr(Lark, "load", load)
    assert tables._read(GRAMMAR) is None
    assert tables.parser("module").parse("let a = 1\n") == fresh().parse("let a = 1\n")


@pytest.mark.parametrize("version", ["1.2.1", "1.3.0", "1.3.9"])
def test_the_version_of_lark_does_not_matter(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lark, "__version__", version)
    assert tables._read(GRAMMAR) is not None
