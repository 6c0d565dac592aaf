"""The demo, as `make demo` runs it: train, merge, and ask."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo"


def run(*command: str | Path) -> str:
    result = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_merge_has_both_skills_where_each_parent_has_one(tmp_path: Path) -> None:
    work = tmp_path / "demo-out"
    recipe = tmp_path / "examples" / "demo" / "demo.mrg"  # it names the checkpoints as ../../demo-out/…
    recipe.parent.mkdir(parents=True)
    shutil.copyfile(DEMO / "demo.mrg", recipe)
    run(DEMO / "train.py", work)
    run("-m", "mergec.cli.main", "-q", recipe, "-o", work / "merged")
    names, *rows = (line.split() for line in run(DEMO / "evaluate.py", work).splitlines())
    score = {row[0]: dict(zip(names[1:], (float(cell.rstrip("%")) for cell in row[1:]), strict=True)) for row in rows}
    assert score["cipher"]["cipher"] > 90
    assert score["sort"]["sort"] > 90
    assert score["cipher"]["sort"] < 30
    assert score["sort"]["cipher"] < 30
    assert max(score["base"].values()) < 30
    assert min(score["merged"].values()) > 80
