"""Variants of methods that the papers' authors use: breadcrumbs by row, TIES divided by absolute
weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from merging import merge


def numbers(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(6, 50), (3, 4, 20), (40,), (5, 1), (0, 7)])
@pytest.mark.parametrize(("density", "gamma"), [(0.5, 0.1), (0.9, 0.3), (0.01, 0.0), (1.0, 0.5)])
def test_breadcrumbs_by_row(shape: tuple[int, ...], density: float, gamma: float) -> None:
    base, a = numbers(0, shape), numbers(1, shape)
    recipe = f"* = breadcrumbs(a, density={density}, gamma={gamma}, axis=-1)"
    made = merge(recipe, {"base": {"x": base}, "a": {"x": a}})["x"].numpy()
    delta = (a - base).numpy().astype(np.float64)
    rows = delta.reshape(-1, shape[-1]) if len(shape) > 1 else delta.reshape(1, -1)
    columns = rows.shape[1]
    wanted = int(density * columns)
    smaller = max(0, columns - wanted - int(gamma * columns))
    kept = np.zeros_like(rows)
    for row, out in zip(rows, kept, strict=True):
        descending = np.argsort(-np.abs(row.astype(np.float32)), kind="stable")
        order = descending[columns - smaller - wanted : columns - smaller]
        out[order] = row[order]
    expected = base.numpy() + (rows if density >= 1 else kept).reshape(shape)
    np.testing.assert_allclose(made, expected, rtol=1e-6, atol=1e-6)


def test_ties_with_a_negative_weight() -> None:
    models = {
        "base": {"x": torch.zeros(2)},
        "a": {"x": torch.tensor([1.0, 2.0])},
        "b": {"x": torch.tensor([0.0, 3.0])},
    }
    plain = merge("* = ties(a, b, weight=[-0.5, 1])", models)["x"]
    absolute = merge('* = ties(a, b, weight=[-0.5, 1], divisor="abs")', models)["x"]
    # only a moves the first element: its weight cancels its own sign, or only its size
    np.testing.assert_allclose(plain, [1.0, 3.0])
    np.testing.assert_allclose(absolute, [-1.0, 3.0])
