"""What simplification leaves: the values that are written, and what is read for them."""

from __future__ import annotations

import math
from pathlib import Path

import mergec
import numpy as np
import pytest
from mergec.compiler.plan.plan import Copy
from safetensors.numpy import load_file, save_file

SHAPE = (5, 8)
ODD = (math.inf, -math.inf, math.nan)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a` and `b`, and `odd`, whose first numbers are none that can be computed with."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("a", "b", "odd")):
        x = np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)
        if name == "odd":
            x.flat[: len(ODD)] = ODD
        save_file({"x.weight": x}, root / f"{name}.safetensors")
    return root


def compiled(models: Path, value: str) -> mergec.Compiled:
    lets = "".join(f'let {name} = model("{models / name}.safetensors")\n' for name in ("a", "b", "odd"))
    return mergec.compile(f'{lets}output(like=a)\n"*" = {value}\n', device="cpu")


# what is written, the models that it is made of, and the value by hand
CASES = {
    "odd - odd": ("", "0"),
    "b + (odd - odd)": ("b", "b"),
    "b - (odd - odd)": ("b", "b"),
    "b * (1 + odd - odd)": ("b odd", "b * (1 + odd - odd)"),
    "0*odd + b": ("b", "b"),
    "b + odd*0": ("b", "b"),
    "1*b": ("b", "b"),
    "b*1": ("b", "b"),
    "b/1": ("b", "b"),
    "b - 0": ("b", "b"),
    "0 + b": ("b", "b"),
    "b - 1": ("b", "b - 1"),
    "b + 1": ("b", "b + 1"),
    "b - (-1)": ("b", "b + 1"),
    "b*0.5": ("b", "b*0.5"),
    "b*2": ("b", "b*2"),
    "b/2": ("b", "b/2"),
    "b/(-1)": ("b", "-b"),
    "0 - b": ("b", "-b"),
    "2*b - b*2": ("", "0"),
    "b*(a - a)": ("", "0"),
    "a - b": ("a b", "a - b"),
    "b - a": ("a b", "b - a"),
    "where(1 > 0, a, odd)": ("a", "a"),
    "where(0 > 1, odd, b)": ("b", "b"),
    "where(odd > 0, a, a)": ("a", "a"),
    "where(a > 0, a, b)": ("a b", "np.where(a > 0, a, b)"),
    "where(a - a > 0, a, b)": ("b", "b"),
    "where(a > 0 and b > 0, a, b)": ("a b", "np.where((a > 0) & (b > 0), a, b)"),
    "where(a > 0 and 1 > 0, a, b)": ("a b", "np.where(a > 0, a, b)"),
    "where(0 < 1 and a > 0, a, b)": ("a b", "np.where(a > 0, a, b)"),
    "where(a > 0 and 0 > 1, a, b)": ("b", "b"),
    "b + dot(a, odd - odd)": ("b", "b"),
    "b + total(odd - odd)": ("b", "b"),
    "b + 1e3*(a - a + 2)": ("b", "b + 2000"),
    # a tensor that became a number has as many elements as before
    "b + total(a - a + 2)": ("b", f"b + {2 * math.prod(SHAPE)}"),
    "b + dot(a - a + 2, a - a + 3)": ("b", f"b + {6 * math.prod(SHAPE)}"),
    "b + count(a - a + 2 > 1)": ("b", f"b + {math.prod(SHAPE)}"),
    "b + count(a - a + 2 < 1)": ("b", "b"),
    "abs(a - a - 3)*b": ("b", "3*b"),
}


@pytest.mark.parametrize("value", CASES)
def test_value_and_reads(value: str, models: Path, tmp_path: Path) -> None:
    read, wanted = CASES[value]
    made = compiled(models, value)
    inputs = {n: load_file(models / f"{n}.safetensors")["x.weight"].astype(np.float64) for n in ("a", "b", "odd")}
    with np.errstate(invalid="ignore"):
        by_hand = np.broadcast_to(eval(wanted, {"np": np}, inputs), SHAPE)
    made.run(tmp_path / "out")
    out = load_file(tmp_path / "out" / "model.safetensors")["x.weight"]
    np.testing.assert_allclose(out, by_hand, rtol=1e-6, atol=1e-7)
    assert made.plan.reads == len(read.split()) * 4 * math.prod(SHAPE)
    # where nothing is left to compute, bytes are copied
    assert all(isinstance(step.action, Copy) for step in made.plan.steps) == (wanted in ("a", "b"))
