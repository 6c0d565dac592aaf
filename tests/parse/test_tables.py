"""The tables that are shipped are those of the grammar."""

from __future__ import annotations

import json
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
    return Lark(GRAMMAR, start=["module"], **tables.OPTIONS)


def test_they_are_of_this_grammar() -> None:
    """After a change of merge.lark: `python -m mergec.grammar.tables > grammar/tables.json`."""
    shipped = json.loads((ROOT / "grammar" / "tables.json").read_text("utf-8"))
    made = json.loads(tables.tables_text())
    assert shipped["grammar"] == made["grammar"]
    if shipped["lark"] == lark.__version__:
        assert tables._read(GRAMMAR) is not None
        assert shipped["data"]["options"] == made["data"]["options"]
        states = [t["data"]["parser"]["parser"]["states"] for t in (shipped, made)]
        assert len(states[0]) == len(states[1])


def test_they_parse_as_the_grammar_does() -> None:
    ready, made = tables.parser("module"), fresh()
    for path in RECIPES:
        text = scan(Source(str(path), path.read_text("utf-8"))).text
        assert ready.parse(text) == made.parse(text)


def test_tables_of_another_grammar_do_not_count() -> None:
    assert tables._read(GRAMMAR + "\n// changed\n") is None


def test_tables_of_another_lark_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lark, "__version__", "0.0")
    assert tables._read(GRAMMAR) is None
    assert tables.parser("module").parse("let a = 1\n") == fresh().parse("let a = 1\n")
