"""The table of errors: complete and true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from error_cases import outcome
from mergec.cli.explain.code import explain_code
from mergec.cli.explain.method import explain_method
from mergec.grammar.diagnostic import MergecError
from mergec.grammar.error_codes import ERRORS, GROUPS, Exit

ROOT = Path(__file__).resolve().parents[2]
FILES = [("file circle.mrg", 'use "circle.mrg"'), ("file assigns.mrg", "* = 1")]
COMPILED = [c for c in ERRORS if c[:3] in ("E01", "E02", "E03", "W05") and not ERRORS[c].example.startswith("mergec")]


def raised() -> set[str]:
    """The codes that the source names as strings."""
    files = [f for folder in ("grammar", "compiler", "runtime", "cli") for f in (ROOT / folder).rglob("*.py")]
    texts = [f.read_text("utf-8") for f in (*ROOT.glob("*.py"), *files)]
    return {code for text in texts for code in re.findall(r'"([EW]0\d{3})"', text)}


def test_the_table_has_every_code_and_no_other() -> None:
    assert set(ERRORS) == raised()


def test_each_code_belongs_to_a_group_and_the_order_is_theirs() -> None:
    groups = list(GROUPS)
    assert list(ERRORS) == sorted(ERRORS, key=lambda code: (groups.index(code[:3]), code))


@pytest.mark.parametrize("code", COMPILED)
def test_the_example_of_a_page_causes_its_error(code: str) -> None:
    _, codes = outcome(ERRORS[code].example, FILES)
    assert code in codes


def test_a_page_has_title_meaning_example_and_fix() -> None:
    shown = explain_code("E0217")
    assert shown.startswith("E0217: no base\n\nThe method works on differences")
    assert "    * = ties(a, b, density=0.5)\n" in shown
    assert shown.endswith("fix: Pass one, `base=…`, or name one: `let base = model(…)`.\n")


def test_there_is_no_page_for_a_code_that_does_not_exist() -> None:
    with pytest.raises(MergecError) as caught:
        explain_code("E0399")
    assert (caught.value.diagnostics[0].code, caught.value.exit) == ("E0005", Exit.USAGE)


def test_a_method_is_shown_with_its_comment() -> None:
    shown = explain_method("ties")
    assert "arXiv:2306.01708" in shown
    assert "def ties(\n    *models: region,\n    base: region,\n" in shown
    assert explain_method("dot").startswith("dot(x, y)\n")


def test_an_unknown_method_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(MergecError) as caught:
        explain_method("slrp")
    found = caught.value.diagnostics[0]
    assert (found.code, found.help) == ("E0004", ("did you mean `slerp` or `nuslerp`?",))
