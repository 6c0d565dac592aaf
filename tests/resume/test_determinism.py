"""The same bytes for any number of lanes, size of blocks and budget of memory, gone on or made from
an earlier output."""

from __future__ import annotations

import threading
from pathlib import Path

import mergec
import pytest
import torch
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.compiler.plan.plan import CHUNK, Plan
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.execute.executor import Cancelled
from mergec.runtime.resume import keeper
from resume_models import weights
from safetensors.torch import save_file

SHAPES = {"x0": (300, 450), "x1": (300, 301), "x2": (CHUNK * 2 + 5,), "x3": (70, 90), "x4": ()}
RECIPE = """output(dtype="bfloat16")
* = dare_ties(a, b, base=base, density=0.4)
x1 = slerp(a, b, t=0.3)
x3 = ties(truncate_rank(a), b, base=base, density=0.2)
"""
EARLIER = RECIPE.replace("t=0.3", "t=0.7").replace("density=0.2", "density=0.3")
"""Makes x1 and x3 otherwise."""

PATHS = ("straight", "gone on", "from an earlier output", "both")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    for k, label in enumerate(("base", "a", "b")):
        random = torch.Generator().manual_seed(k)
        tensors = {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}
        save_file(tensors, made / f"{label}.safetensors")
    return made


@pytest.fixture(scope="module")
def wanted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("wanted") / "out"
    mergec.run(plan_of(folder, RECIPE, Options(lanes=1, block=1 << 22)), out)
    return weights(out)


def plan_of(folder: Path, recipe: str, options: Options) -> Plan:
    lets = "".join(f'let {label} = model("{folder}/{label}.safetensors")\n' for label in ("base", "a", "b"))
    return compile_recipe(Source("<recipe>", lets + recipe), LocalCatalog(), "0", options).plan


@pytest.mark.parametrize(
    ("lanes", "block", "tight"),
    [(1, CHUNK, False), (3, CHUNK, False), (2, 4 * CHUNK, False), (4, 3 * CHUNK, True)],
)
def test_matrix(
    lanes: int,
    block: int,
    tight: bool,
    folder: Path,
    tmp_path: Path,
    wanted: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    budget = plan_of(folder, RECIPE, Options(lanes=1, block=CHUNK)).peak_host if tight else None
    options = Options(lanes=lanes, block=block, host_memory=budget)
    plan = plan_of(folder, RECIPE, options)
    for path in PATHS:
        out = tmp_path / path
        if path in ("from an earlier output", "both"):
            mergec.run(plan_of(folder, EARLIER, options), out)
        if path in ("gone on", "both"):
            stop(plan, out)
        report = mergec.run(plan, out, force=True)
        assert weights(out) == wanted, path
        assert (report.resumed > 0) == (path in ("gone on", "both")), path
        assert (report.reused > 0) == (path in ("from an earlier output", "both")), path


class After:
    """Stops a run when it begins with one tensor."""

    def __init__(self, index: int, cancel: threading.Event) -> None:
        self.index, self.cancel = index, cancel

    def begins(self, plan: object, notices: object) -> None: ...

    def tensor(self, index: int) -> None:
        if index == self.index:
            self.cancel.set()

    def moved(self, read: int, written: int) -> None: ...

    def live(self, host: int, device: int) -> None: ...


def stop(plan: Plan, out: Path) -> None:
    """With x1 made, and x3 not."""
    cancel = threading.Event()
    at = After([t.name for t in plan.tensors].index("x3"), cancel)
    with pytest.raises(Cancelled):
        mergec.run(plan, out, force=True, progress=at, cancel=cancel)
