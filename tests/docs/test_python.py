"""docs/python.md: its examples run and print what they should; every public name is on the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import mergec
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCKS = re.findall(r"^```python\n((?:.*\n)*?)```$", (DOCS / "python.md").read_text("utf-8"), re.MULTILINE)


def _run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compile_without_files(tmp_path: Path) -> None:
    assert _run(BLOCKS[0], tmp_path).splitlines()[0] == "4096"


def test_merge_files(tmp_path: Path) -> None:
    values, account = _run(BLOCKS[1], tmp_path).splitlines()
    assert values == "[1.5, 2.0]"
    assert account == "16 True"


def test_errors(tmp_path: Path) -> None:
    printed = _run(BLOCKS[2], tmp_path)
    assert printed.startswith("E0301 ")
    assert "did you mean `layers`?" in printed


def test_plans(tmp_path: Path) -> None:
    assert _run(BLOCKS[3], tmp_path).split()[1:] == ["32", "32"]


def test_every_example_is_run() -> None:
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("name", mergec.__all__)
def test_every_public_name_is_told_of(name: str) -> None:
    assert re.search(rf"`{name}\b", (DOCS / "python.md").read_text("utf-8"))
