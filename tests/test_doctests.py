"""The examples in docstrings say what happens."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("", "grammar", "compiler", "runtime", "cli")


def _with_examples() -> list[str]:
    """The modules of the package with examples in them, by their names."""
    files = [
        file
        for folder in FOLDERS
        for file in (ROOT / folder).glob("**/*.py" if folder else "*.py")
        if ">>> " in file.read_text("utf-8")
    ]
    dotted = [".".join(("mergec", *file.relative_to(ROOT).with_suffix("").parts)) for file in files]
    return sorted(name.removesuffix(".__init__") for name in dotted)


@pytest.mark.parametrize("name", _with_examples())
def test_examples(name: str) -> None:
    done = doctest.testmod(importlib.import_module(name))
    assert done.failed == 0
    assert done.attempted > 0, "what looks like an example is none"
