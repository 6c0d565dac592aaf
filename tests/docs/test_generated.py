"""What docs/ shows of the sources is what the sources say. `UPDATE_DOCS=1 pytest tests/docs` writes
it anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from generated_pages import SECTIONS, methods_markdown, refreshed
from mergec.compiler.evaluate.builtins import BUILTINS
from mergec.compiler.evaluate.standard_library import Library

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_page_is_up_to_date(page: Path) -> None:
    text = page.read_text("utf-8")
    new = refreshed(page.name, text)
    if "UPDATE_DOCS" in os.environ:
        page.write_text(new, "utf-8")
        return
    assert text == new, f"{page.name} is behind the sources: UPDATE_DOCS=1 pytest tests/docs"


def test_every_section_is_on_some_page() -> None:
    texts = "".join(page.read_text("utf-8") for page in PAGES)
    assert [name for name in SECTIONS if f"<!-- {name} -->" not in texts] == []


def test_every_function_of_the_library_is_told_of() -> None:
    text = methods_markdown()
    assert [name for name in Library().names if f"`{name}`" not in text] == []


def test_no_function_has_two_meanings() -> None:
    assert set(BUILTINS) & set(Library().names) == set()


def test_a_marker_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="has no end"):
        refreshed("methods.md", "<!-- methods -->\n")
