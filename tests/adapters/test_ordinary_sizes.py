"""Merges over `base + lora(…)` at sizes that people have, in as many lanes as are usual: the
formulas' numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import checkpoints
import lora_adapters
import mergec
import numpy as np
import pytest
import reference
from lora_adapters import normal

HIDDEN, LAYERS = 768, 2
SHAPES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.up_proj": (1536, HIDDEN)}
ADAPTED = ("self_attn.q_proj",)
METHODS = {
    "linear": ((4, 128), "linear(chat, a)"),
    "task_arithmetic": ((16,), "task_arithmetic(chat, a, base=base, weight=[0.5, 0.5])"),
    "slerp": ((16,), "slerp(chat, a, t=0.3)"),
    "ties": ((4, 128), "ties(chat, a, base=base, density=0.5)"),
}
"""The ranks of adapters that each is tried with."""
Array = np.ndarray


def half(delta: Array) -> Array:
    """The half of largest magnitude, of equals the first; `reference.largest` takes long over so
    many."""
    kept = np.zeros(delta.shape)
    first = np.argsort(-np.abs(delta), axis=None, kind="stable")[: delta.size // 2]
    kept.flat[first] = delta.flat[first]
    return kept


def wanted(method: str, models: Sequence[Array], base: Array) -> tuple[Array, Array]:
    """The merge, and where no rounding can have changed what is picked."""
    everywhere = np.ones(base.shape, bool)
    if method == "linear":
        return reference.linear(models, [1, 1]), everywhere
    if method == "slerp":
        return reference.slerp(*models, 0.3), everywhere
    if method == "task_arithmetic":
        made = reference.combined(base, reference.deltas(models, base), [0.5, 0.5], False, 1.0)
    else:
        made = reference.elected(base, [half(d) for d in reference.deltas(models, base)], [1, 1], True, 1.0)
    return made.value, made.sure


@pytest.mark.parametrize("rank", [4, 16, 128])
def test_the_numbers_of_the_formulas(rank: int, tmp_path: Path) -> None:
    names = [f"model.layers.{k}.{name}" for k in range(LAYERS) for name in SHAPES]
    models = {}
    for label, seed in (("base", 1), ("a", 2)):
        tensors = {f"{n}.weight": normal(*SHAPES[n.split(".", 3)[3]], seed=seed + 10 * k) for k, n in enumerate(names)}
        models[label] = {n: (0.05 * t).bfloat16() for n, t in tensors.items()}
        (tmp_path / label).mkdir()
        checkpoints.store(models[label], tmp_path / label)
    made = lora_adapters.factors(models["base"], [n for n in names if n.split(".", 3)[3] in ADAPTED], rank)
    config = {"r": rank, "lora_alpha": 0.5}
    adapter = lora_adapters.write(tmp_path / "adapter", made, **config)
    chat = lora_adapters.applied(models["base"], made, config)
    lets = f'let base = model("{tmp_path}/base")\nlet a = model("{tmp_path}/a")\nlet chat = base + lora("{adapter}")\n'
    for method, (ranks, value) in METHODS.items():
        if rank not in ranks:
            continue
        compiled = mergec.compile(f'{lets}output(dtype="float32")\n* = {value}\n', device="cpu")
        report = compiled.run(tmp_path / "out", force=True, fresh=True)
        assert report.outcome.peak_host <= compiled.plan.peak_host
        for name, tensor in checkpoints.load(tmp_path / "out").items():
            old, other = (models[label][name].double().numpy() for label in ("base", "a"))
            value_, sure = wanted(method, [chat[name], other], old)
            off = np.abs(tensor.double().numpy() - value_) > 2e-5
            # of two masks that depend on the adapted numbers, an element at the threshold may fall
            # on either side
            allowed = 1e-4 if method == "ties" else 0.0
            assert (off & sure).mean() <= allowed, (method, name)
