"""The methods that `check.py` has no reference of its own for, against the naive ones of tests/."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import reference as plain
import reference_more as more
import reference_rows as rows
from reference import Array, Mask, Merged

Tensors = Mapping[str, torch.Tensor]
WEIGHTS = (0.5, 0.25)
DENSITY, EPSILON, GAMMA = 0.5, 0.2, 0.1
Wanted = Callable[[Sequence[Array], Array, str], Merged]


def drawn(key: int, shape: tuple[int, ...]) -> Array:
    """The random numbers in [0, 1) of a mask's elements: splitmix64, the upper 24 bits."""
    z = np.uint64(key) + np.arange(1, 1 + int(np.prod(shape)), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(((z ^ (z >> np.uint64(31))) >> np.uint64(40)) / 2**24).reshape(shape)


def masked(m: Sequence[Array], z: Array, name: str, epsilon: float) -> tuple[list[Array], Mask]:
    """Task vectors with what dare (`epsilon` 0) and della drop, rescaled; and where that is
    sure."""
    left, sure = [], np.ones(z.shape, bool)
    for label, delta in zip("ab", plain.deltas(m, z), strict=True):
        chance = np.float32(DENSITY) if epsilon == 0 else DENSITY - epsilon + 2 * epsilon * rows.ranks(np.abs(delta))
        numbers = drawn(plain.key_of(0, name, label), z.shape)
        if epsilon:
            sure &= np.abs(numbers - chance) > 1e-6
        left.append(plain.rescaled(delta, np.where(numbers < chance, delta, 0), DENSITY, "l1"))
    return left, sure


def dropping(epsilon: float, elect: bool | None) -> Wanted:
    """`elect`: by sign, and with what agrees divided by its weights or not; None for a plain
    sum."""

    def wanted(m: Sequence[Array], z: Array, name: str) -> Merged:
        left, sure = masked(m, z, name, epsilon)
        if elect is None:
            found = plain.combined(z, left, WEIGHTS, False, 1.0)
        else:
            found = plain.elected(z, left, WEIGHTS, elect, 1.0)
        return Merged(found.value, found.size, found.sure & sure)

    return wanted


def banded(elect: bool) -> Wanted:
    def wanted(m: Sequence[Array], z: Array, _: str) -> Merged:
        left = more.bands(m, z, (DENSITY,) * 2, (GAMMA,) * 2, None)
        joined = plain.elected if elect else plain.combined
        return joined(z, left, WEIGHTS, False, 1.0)

    return wanted


def sure(value: Array, size: Array) -> Merged:
    return Merged(value, size, np.ones(value.shape, bool))


def fused(m: Sequence[Array], _z: Array, _n: str) -> Merged:
    """Compared everywhere, though an importance that lies at the threshold might fall on the other
    side."""
    return sure(rows.arcee_fusion(m[0], m[1]).value, np.abs(m[0]) + np.abs(m[1]))


WANTED: Mapping[str, Wanted] = {
    "nuslerp": lambda m, _z, _n: more.nuslerp(m[0], m[1], WEIGHTS, None, "tensor", 0.0),
    "multislerp": lambda m, _z, _n: more.multislerp(m, WEIGHTS, None, True),
    "karcher": lambda m, _z, _n: more.karcher(m, (1, 1)),
    "task_arithmetic": lambda m, z, _: plain.combined(z, plain.deltas(m, z), WEIGHTS, False, 1.0),
    "dare_linear": dropping(0.0, None),
    "della": dropping(EPSILON, True),
    "della_linear": dropping(EPSILON, None),
    "breadcrumbs": banded(False),
    "breadcrumbs_ties": banded(True),
    "sce": lambda m, z, _: more.sce(m, z, 0.5, 1e-6),
    "ram": lambda m, z, _: more.ramplus(m, z, 0, 0.2),
    "ramplus_tl": lambda m, z, _: more.ramplus(m, z, 0.1, 0.2),
    "model_stock": lambda m, z, _: more.model_stock(m, z, "tensor", None, 1e-6),
    "nearswap": lambda m, z, _: sure(more.nearswap(m[0], m[1], 0.0005), np.abs(m[0]) + np.abs(m[1]) + 0 * z),
    "arcee_fusion": fused,
}


def check_by_reference(method: str, out: Tensors, base: Tensors, models: Sequence[Tensors]) -> list[str]:
    """What is wrong with the result of a method in `WANTED`; elements that rounding may decide are
    skipped."""
    faults, compared, total = [], 0, 0
    for name, tensor in out.items():
        found = WANTED[method]([wide(m[name]) for m in models], wide(base[name]), name)
        error = np.abs(wide(tensor) - found.value)
        wrong = (error > np.abs(found.value) * 2.0**-8 + found.size * 2.0**-20) & found.sure
        if wrong.any():
            faults.append(f"`{name}`: {int(wrong.sum())} of {tensor.numel()} elements differ")
        compared, total = compared + int(found.sure.sum()), total + tensor.numel()
    if compared < 0.9 * total:
        faults.append(f"only {compared / total:.1%} of the elements could be compared")
    return faults


def wide(tensor: torch.Tensor) -> npt.NDArray[np.float64]:
    return np.asarray(tensor.to(torch.float64).numpy())
