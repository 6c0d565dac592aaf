"""Each code's messages, word for word: tests/errors/CODE.txt holds the recipes and what is
printed."""

from __future__ import annotations

import pytest
from error_cases import FOLDER, Case, outcome, read_cases, rewrite
from mergec.grammar.error_codes import ERRORS

FILES = sorted(f for f in FOLDER.glob("*.txt") if f.name != "models.txt")
CASES = [case for file in FILES for case in read_cases(file)]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.file.stem}-{c.title.replace(' ', '-')}")
def test_message(case: Case, request: pytest.FixtureRequest) -> None:
    printed, codes = outcome(case.recipe, case.sections)
    if request.config.getoption("--update-golden", default=False):
        rewrite(case, printed)
        return
    if case.file.stem in ERRORS:
        assert case.file.stem in codes, printed
    assert case.output is not None, "no output is given: run with --update-golden, and read what it writes"
    assert printed.rstrip("\n") == case.output.rstrip("\n")


# what only a command says, such as `mergec fmt`, has no recipe for a case
LANGUAGE = [c for c in ERRORS if c[:3] in ("E01", "E02", "E03", "W05") and not ERRORS[c].example.startswith("mergec")]


@pytest.mark.parametrize("code", LANGUAGE)
def test_every_code_of_the_language_has_cases(code: str) -> None:
    assert FOLDER / f"{code}.txt" in FILES
