"""Numbers of a whole model: sums over all its tensors, and thresholds by counting."""

from __future__ import annotations

from pathlib import Path

import mergec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

SHAPES = {"x.weight": (300, 500), "y.weight": (700,), "z.bias": (1,), "empty": (0, 3), "w.weight": (500, 300)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("base", "a", "b"):
        tensors = {k: (rng.standard_normal(s) * rng.choice([0.1, 1, 3])).astype(np.float32) for k, s in SHAPES.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return tmp_path


def merge(folder: Path, statements: str, settings: str = "") -> dict[str, np.ndarray]:
    lets = "\n".join(f'let {n} = model("{folder / n}.safetensors")' for n in ("base", "a", "b"))
    mergec.compile(f"{lets}\noutput({settings})\n{statements}\n", device="cpu").run(folder / "out", force=True)
    return load_file(folder / "out" / "model.safetensors")


def load(folder: Path, name: str) -> dict[str, np.ndarray]:
    return {k: v.astype(np.float64) for k, v in load_file(folder / f"{name}.safetensors").items()}


def test_sum_over_the_statements_tensors(folder: Path) -> None:
    made = merge(
        folder, '"*" = a\n"*.weight" = across(total(abs(a))) + 0*a\n"empty" = a\n"*.bias" = across_max(numel(a))'
    )
    a = load(folder, "a")
    norm = sum(np.abs(v).sum() for k, v in a.items() if k.endswith(".weight"))
    for name in ("x.weight", "y.weight", "w.weight"):
        np.testing.assert_allclose(made[name], np.full(SHAPES[name], norm), rtol=1e-6)
    np.testing.assert_array_equal(made["z.bias"], [1.0])


@pytest.mark.parametrize("density", [0.001, 0.3, 0.999])
@pytest.mark.parametrize("compute", ["float32", "float64"])
def test_threshold_over_the_model(folder: Path, density: float, compute: str) -> None:
    statement = f'"*" = where(abs(a - b) >= model_threshold(a - b, {density}), 1, 0)'
    made = merge(folder, statement, f'compute="{compute}"')
    kind = np.float32 if compute == "float32" else np.float64
    a, b = (load_file(folder / f"{n}.safetensors") for n in ("a", "b"))
    deltas = {k: np.abs(a[k].astype(kind) - b[k].astype(kind)) for k in a}
    every = np.sort(np.concatenate([d.ravel() for d in deltas.values()]))[::-1]
    threshold = every[max(1, int(density * every.size)) - 1]
    for name, delta in deltas.items():
        np.testing.assert_array_equal(made[name], (delta >= threshold).astype(np.float32))


def test_it_takes_numbers(folder: Path) -> None:
    with pytest.raises(mergec.MergecError) as caught:
        merge(folder, '"*" = across(a)')
    assert [d.code for d in caught.value.diagnostics] == ["E0208"]
