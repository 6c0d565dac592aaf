"""mergec's own code: an edit of what computes shows in keys of all that is computed, and nothing
else does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mergec.compiler.graph.code_digest import FOLDERS, own_code
from test_layers import ROOT, imports, sources

COMPILE = """
import json, mergec
shapes = {n: ("F32", (4, 4)) for n in ("layers.0.w", "layers.1.w", "layers.2.w", "layers.3.w", "layers.4.w")}
catalog = mergec.MemoryCatalog({name: {"tensors": shapes} for name in ("base", "a", "b")})
recipe = '''
let base = model("base")
let a = model("a")
let b = model("b")
layers[0] = ties(a, b, density=0.5)
layers[1] = slerp(a, b, t=0.5)
layers[2] = 0.5*a
layers[3] = a
layers[4] = a.layers[0]
'''
plan = mergec.compile(recipe, catalog=catalog, device="cpu").plan
print(json.dumps({t.name: t.key for t in plan.tensors}))
"""
COMPUTED = {"layers.0.w", "layers.1.w", "layers.2.w"}


def keys(site: Path) -> dict[str, str]:
    env = os.environ | {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=env, cwd=site, capture_output=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of mergec that can be edited."""
    site = tmp_path_factory.mktemp("site")
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("grammar", "compiler", "runtime", "cli", "stdlib"):
        shutil.copytree(ROOT / name, site / "mergec" / name, ignore=skipped)
    for path in ROOT.glob("*.py"):
        shutil.copy(path, site / "mergec")
    return site


@pytest.fixture(scope="module")
def before(site: Path) -> dict[str, str]:
    return keys(site)


def appended(text: str) -> str:
    return text + "\n# another line\n"


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("runtime/portable/elementwise.py", appended, COMPUTED),
        ("runtime/native/body.h", appended, COMPUTED),
        ("compiler/schedule/steps.py", appended, COMPUTED),
        ("cli/main.py", appended, set()),
        ("runtime/verify/report.py", appended, set()),
        ("stdlib/ties.mrg", appended, set()),
        (
            "stdlib/ties.mrg",
            lambda text: text.replace("lambda * elected_sum", "2 * lambda * elected_sum"),
            {"layers.0.w"},
        ),
        ("stdlib/slerp.mrg", lambda text: text.replace("0.9995", "0.9990"), {"layers.1.w"}),
    ],
)
def test_what_an_edit_changes(
    file: str, change: Callable[[str], str], expected: set[str], site: Path, before: dict[str, str]
) -> None:
    path = site / "mergec" / file
    text = path.read_text("utf-8")
    assert change(text) != text
    path.write_text(change(text), "utf-8")
    try:
        after = keys(site)
        assert {name for name in before if before[name] != after[name]} == expected
    finally:
        path.write_text(text, "utf-8")


def test_compiled_kernels_count(site: Path, before: dict[str, str]) -> None:
    path = site / "mergec/runtime/native/_kernels.of-another-build.so"
    path.write_bytes(b"\x7fELF")
    try:
        after = keys(site)
        assert {name for name in before if before[name] != after[name]} == COMPUTED
    finally:
        path.unlink()


def test_all_that_computes_lies_in_the_folders_that_count() -> None:
    """What the executor and the schedule import, and what that imports."""
    modules = {".".join(file.with_suffix("").parts): file for file in sources()}
    wanted = {
        "runtime.execute.executor",
        "runtime.execute.devices",
        "runtime.output.writer",
        "compiler.schedule.schedule",
        "compiler.plan.prune",
    }
    reached: set[str] = set()
    while wanted:
        module = wanted.pop()
        reached.add(module)
        for found in imports():
            if found.own and not found.typing_only and ".".join(found.file.with_suffix("").parts) == module:
                target = found.target if found.target in modules else found.target.rpartition(".")[0]
                wanted |= {target} & modules.keys() - reached
    folders = {modules[name].parent.as_posix() for name in reached}
    # spans, diagnostics and data classes are no part of the arithmetic; nor are checksums, digests
    # of code, and names, which show in the graph
    assert folders - {"grammar", "runtime/resume", "runtime/catalog", "compiler/family"} == set(FOLDERS)
    assert own_code() == own_code() != ""
