"""Masks that take long to make and are needed again are held as bits: the same bytes as when they
are made again."""

from __future__ import annotations

from pathlib import Path

import mergec
import pytest
import torch
from mergec.compiler.plan.codec import from_json, to_json
from mergec.compiler.plan.plan import CHUNK, Held, Mask, Pass, Plan, ToBuffer
from mergec.compiler.schedule import steps
from mergec.runtime.native import backend
from resume_models import plan_of, weights
from safetensors.torch import save_file

FLAT = 3 * CHUNK + 8
SHAPES = {
    "even.weight": (1000, 264),
    "odd.weight": (500, 301),
    "flat.weight": (FLAT,),
    "small.weight": (64, 64),
}
RECIPES = {
    "della": '* = della(a, b, base=base, density=0.5, epsilon=0.1, rescale="l1")',
    "della_linear": '* = della_linear(a, b, base=base, density=[0.3, 0.6], epsilon=0.1, rescale="l2")',
    "breadcrumbs": '* = breadcrumbs(a, b, base=base, density=0.5, gamma=0.1, axis=-1, rescale="l1")',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    for k, label in enumerate(("base", "a", "b")):
        random = torch.Generator().manual_seed(k)
        save_file({n: torch.randn(s, generator=random) for n, s in SHAPES.items()}, made / f"{label}.safetensors")
    return made


def held(plan: Plan) -> dict[str, int]:
    """How many bytes of masks are held for each tensor."""
    found: dict[str, int] = {}
    for step in plan.steps:
        for a in step.allocate:
            if a.dtype == "BITS":
                name = plan.tensors[step.tensor].name
                found[name] = found.get(name, 0) + a.nbytes
    return found


def ranked(plan: Plan) -> list[int]:
    """How many ranks the passes over each tensor take, in order."""
    return [
        sum(i.op == "row_rank" for i in s.action.code)
        for s in plan.steps
        if isinstance(s.action, Pass) and s.action.numel == 264_000
    ]


def test_what_is_held(folder: Path) -> None:
    """Neither small tensors nor those of which two rows have a byte in common."""
    plan = plan_of(folder, RECIPES["della"])
    assert held(plan) == {"even.weight": 2 * 264_000 // 8, "flat.weight": 2 * FLAT // 8}
    assert ranked(plan) == [2, 0]
    first, last = (s.action for s in plan.steps if isinstance(s.action, Pass) and s.action.numel == 264_000)
    kept = [s.buffer for s in first.stores if isinstance(s, ToBuffer) and isinstance(s.value, Mask)]
    assert kept == [o.buffer for o in last.operands if isinstance(o, Held)]
    assert from_json(to_json(plan)) == plan


def test_what_is_not_held(folder: Path) -> None:
    """What one pass needs alone, what is cheap, and what an accelerator makes."""
    assert not held(plan_of(folder, '* = della(a, b, base=base, density=0.5, rescale="inv_prob")'))
    assert not held(plan_of(folder, '* = dare_ties(a, b, base=base, density=0.5, rescale="l1")'))
    assert not held(plan_of(folder, RECIPES["della"], device="cuda:0"))


def test_no_room_to_hold(folder: Path) -> None:
    """Masks are made again rather than that a merge needs more memory than it is given."""
    least = plan_of(folder, RECIPES["della"], lanes=1, block=CHUNK).peak_host
    bits = max(held(plan_of(folder, RECIPES["della"])).values())
    plan = plan_of(folder, RECIPES["della"], lanes=3, host_memory=least - bits)
    assert not held(plan)
    assert ranked(plan) == [2, 2]
    assert plan.peak_host <= least - bits


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("lanes", [1, 3])
def test_the_same_bytes_as_made_again(
    method: str, lanes: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(folder, RECIPES[method], lanes=lanes)
    assert held(plan)
    outcome = mergec.run(plan, tmp_path / "held").outcome
    assert outcome.peak_host == plan.peak_host
    with monkeypatch.context() as patch:
        patch.setattr(steps, "MASKS", 0)
        again = plan_of(folder, RECIPES[method], lanes=lanes)
        assert not held(again)
        mergec.run(again, tmp_path / "again")
    monkeypatch.setattr(backend, "kernels", lambda: None)
    mergec.run(plan, tmp_path / "portable")
    assert weights(tmp_path / "held") == weights(tmp_path / "again") == weights(tmp_path / "portable")
