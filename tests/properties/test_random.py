"""Random masks: how many elements they keep, and that nothing but recipe and seed decides which."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mergec.compiler.pipeline import Options
from merging import merge

COUNT = 150_000


def noise(seed: int, shape: tuple[int, ...] = (COUNT,)) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape), dtype=torch.float32)


BASE = {"x": torch.zeros(COUNT), "y": torch.zeros(COUNT)}
ONES = {"x": torch.ones(COUNT), "y": torch.ones(COUNT)}


def kept(recipe: str) -> dict[str, torch.Tensor]:
    made = merge(recipe, {"base": BASE, "a": ONES, "b": ONES})
    return {name: tensor != 0 for name, tensor in made.items()}


@pytest.mark.parametrize("density", [0.001, 0.1, 0.5, 0.53, 0.999])
def test_the_share_that_is_kept(density: float) -> None:
    for mask in kept(f"* = dare_linear(a, density={density})").values():
        sigma = math.sqrt(COUNT * density * (1 - density))
        assert abs(int(mask.sum()) - COUNT * density) < 4 * sigma


@pytest.mark.parametrize("density", [0.2, 0.5, 0.83])
def test_the_share_that_is_kept_where_it_rises_with_rank(density: float) -> None:
    rows, columns = 300, 500
    base, a = torch.zeros(rows, columns), noise(7, (rows, columns))
    made = merge(f"* = della_linear(a, density={density}, epsilon=0.1)", {"base": {"x": base}, "a": {"x": a}})["x"]
    mask = made != 0
    rank = a.abs().argsort(dim=1, stable=True).argsort(dim=1, stable=True) / (columns - 1)
    for low, high in ((0, 0.5), (0.5, 1.01)):
        part = (rank >= low) & (rank < high)
        p = density - 0.1 + 0.2 * rank[part].double()
        sigma = math.sqrt(float((p * (1 - p)).sum()))
        assert abs(int(mask[part].sum()) - float(p.sum())) < 4 * sigma


@pytest.mark.parametrize("method", ["dare_ties", "dare_linear", "della", "della_linear"])
def test_the_order_of_models_does_not_change_a_mask(method: str) -> None:
    models = {label: {"x": noise(k, (40, 50))} for k, label in enumerate(("base", "a", "b"))}
    one = merge(f"* = {method}(a, b, density=0.5)", models)["x"]
    two = merge(f"* = {method}(b, a, density=0.5)", models)["x"]
    assert torch.equal(one, two)


def test_masks_of_two_models_tensors_and_seeds_are_independent() -> None:
    p, q = 0.3, 0.6
    a = kept(f"* = dare_linear(a, density={p})")
    b = kept(f"* = dare_linear(b, density={q})")
    seeded = kept(f"output(seed=1)\n* = dare_linear(a, density={p})")
    for first, second, share in (
        (a["x"], b["x"], p * q),
        (a["y"], b["y"], p * q),
        (a["x"], a["y"], p * p),
        (a["x"], seeded["x"], p * p),
        (a["x"][1:], a["x"][:-1], p * p),
    ):
        sigma = math.sqrt(COUNT * share * (1 - share))
        assert abs(int((first & second).sum()) - len(first) * share) < 4 * sigma


def test_a_mask_does_not_depend_on_the_other_models() -> None:
    alone = kept("* = dare_linear(a, density=0.3)")
    again = kept("* = dare_linear(b, a, weight=[0, 1], density=0.3)")
    assert all(torch.equal(alone[name], again[name]) for name in alone)


ROUNDS = (
    "* = dare_ties(a, b, weight=[0.6, 0.5], density=[0.3, 0.7])",
    "* = ties(a, b, weight=[0.6, 0.5], density=[0.3, 0.7])",
    '* = ties(a, b, density=0.2, rescale="l1")',
    '* = dare_linear(a, b, density=[0.3, 0.7], rescale="l1")',
    "* = della(a, b, density=[0.3, 0.7])",
    "* = breadcrumbs(a, b, density=0.4, gamma=0.1)",
    "* = slerp(a, b, t=0.3)",
)
SIZES = {"x": (200_003,), "y": (257, 301), "z": (3,), "w": (), "e": (0, 4)}


@pytest.mark.parametrize("recipe", ROUNDS)
def test_the_same_bytes_whatever_the_blocks_and_lanes(recipe: str) -> None:
    def models(coarse: bool) -> dict[str, dict[str, torch.Tensor]]:
        out = {}
        for k, label in enumerate(("base", "a", "b")):
            out[label] = {name: noise(10 * k + i, shape) for i, (name, shape) in enumerate(SIZES.items())}
            if coarse:  # many equal magnitudes, all over the tensor
                out[label] = {name: (4 * x).round() / 4 for name, x in out[label].items()}
        return out

    for coarse in (False, True):
        given_ = models(coarse)
        wanted = merge(recipe, given_, Options(block=1 << 19, lanes=1))
        for block, lanes in ((1, 1), (1 << 16, 3), (100_000, 2), (1 << 17, 2), (1 << 19, 4)):
            made = merge(recipe, given_, Options(block=block, lanes=lanes))
            for name in wanted:
                assert torch.equal(made[name].reshape(-1).view(torch.uint8), wanted[name].reshape(-1).view(torch.uint8))
