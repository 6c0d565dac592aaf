"""Configurations and the recipes that they become, word for word."""

from __future__ import annotations

import mergec
import pytest
from import_cases import FOLDER, MODELS, Case, imported, read_cases
from mergec.cli.formatter.format import format_module
from mergec.grammar.error_codes import ERRORS
from mergec.grammar.parse import parse
from mergec.grammar.source import Source

FILES = sorted(FOLDER.glob("*.txt"))
CASES = [case for file in FILES for case in read_cases(file)]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.file.stem}-{c.title.replace(' ', '-')}")
def test_recipe(case: Case, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MODELS)
    recipe, printed, _ = imported(case.config)
    if request.config.getoption("--update-import", default=False):
        blocks = [
            c.written(recipe, printed) if c == case else c.written(c.recipe, c.printed) for c in read_cases(case.file)
        ]
        case.file.write_text("\n".join(blocks), "utf-8")
        return
    assert recipe.strip("\n") == case.recipe.strip("\n")
    assert printed.strip("\n") == case.printed.strip("\n")
    if recipe:
        assert format_module(parse(Source("recipe.mrg", recipe))) == recipe
    if recipe and "./" in recipe and "tokenizer=" not in recipe:
        mergec.compile(recipe, device="cpu")


@pytest.mark.parametrize("code", [c for c in ERRORS if c[1:3] == "07"])
def test_the_example_of_a_page_causes_its_error(code: str) -> None:
    assert code in imported(ERRORS[code].example.lstrip("\n"))[2]
