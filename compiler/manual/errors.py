"""Every error and warning: what it means, an example, the way to mend it. `mergec --explain E0203` shows a page.

The texts are data, errors.toml; a test holds its codes and those in the source equal, and compiles the examples.
"""

from __future__ import annotations

import functools
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...grammar.records import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """A page of the table.

    `meaning` is a paragraph, `example` a recipe (or a file, or a command) that causes the error, `mend` what to do.
    """

    code: str
    title: str
    meaning: str
    example: str
    mend: str


class _Table(Mapping[str, ErrorCode]):
    """The table, read when first asked for: errors are explained more seldom than modules are imported."""

    @functools.cached_property
    def _pages(self) -> Mapping[str, ErrorCode]:
        text = Path(__file__).with_name("errors.toml").read_text("utf-8")
        return {code: ErrorCode(code, **fields) for code, fields in tomllib.loads(text).items()}

    def __getitem__(self, code: str) -> ErrorCode:
        return self._pages[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pages)

    def __len__(self) -> int:
        return len(self._pages)


ERRORS: Mapping[str, ErrorCode] = _Table()
"""Code to page, in the order of the codes."""


def page(code: str) -> str | None:
    """The page about a code as text for a terminal; None where there is no such code."""
    found = ERRORS.get(code)
    if found is None:
        return None
    example = "\n".join("    " + line if line else "" for line in found.example.strip("\n").split("\n"))
    meaning, mend = (
        textwrap.fill(t.strip(), 100, break_on_hyphens=False) for t in (found.meaning, f"mend: {found.mend}")
    )
    return f"{code}: {found.title}\n\n{meaning}\n\nexample:\n\n{example}\n\n{mend}\n"
