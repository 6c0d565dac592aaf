"""The merge methods once more: naive, whole tensors, float64 numpy, from their definitions. Shares
no code with mergec.

A function takes arrays of equal shape (listed order, base apart) and plain numbers, one a model.
Task vectors are differences in float32, because which elements rank highest is decided by them; all
else is float64.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Numbers = Sequence[float]


# --- averages and arcs ---------------------------------------------------------------------------


def linear(models: Sequence[Array], weights: Numbers, normalize: bool = True) -> Array:
    total = sum(w * x for w, x in zip(weights, models, strict=True))
    return np.asarray(total / sum(weights) if normalize else total)


def passthrough(model: Array, scale: float | None = None) -> Array:
    return model if scale is None else scale * model


def slerp(a: Array, b: Array, t: float) -> Array:
    norm_a, norm_b = (math.sqrt(math.fsum((x * x).ravel())) for x in (a, b))
    unit_a = a / norm_a if norm_a > 1e-8 else a
    unit_b = b / norm_b if norm_b > 1e-8 else b
    cosine = max(-1.0, min(1.0, math.fsum((unit_a * unit_b).ravel())))
    if abs(cosine) > 0.9995:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


# --- task vectors --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Merged:
    """A value; the `size` of what was added up for it; `sure`, where no rounding can have changed
    what was picked."""

    value: Array
    size: Array
    sure: Mask


def deltas(models: Sequence[Array], base: Array) -> list[Array]:
    return [(m.astype(np.float32) - base.astype(np.float32)).astype(np.float64) for m in models]


def trimmed(models: Sequence[Array], base: Array, densities: Numbers, rescale: str | None) -> list[Array]:
    return [
        rescaled(d, np.where(largest(d, p), d, 0), p, rescale)
        for d, p in zip(deltas(models, base), densities, strict=True)
    ]


def dropped(
    models: Sequence[Array], base: Array, densities: Numbers, rescale: str | None, keys: Sequence[int]
) -> list[Array]:
    return [
        rescaled(d, np.where(kept(key, p, d.size).reshape(d.shape), d, 0), p, rescale)
        for d, p, key in zip(deltas(models, base), densities, keys, strict=True)
    ]


def combined(base: Array, task_vectors: Sequence[Array], weights: Numbers, normalize: bool, scale: float) -> Merged:
    """task_arithmetic, dare_linear: base + scale·Σ wᵢdᵢ (/ Σ wᵢ)."""
    weighted = [w * d for w, d in zip(weights, task_vectors, strict=True)]
    divisor = sum(weights) if normalize else 1.0
    divisor = 1.0 if abs(divisor) < 1e-8 else divisor
    size = np.abs(base) + abs(scale / divisor) * sum(np.abs(u) for u in weighted)
    return Merged(np.asarray(base + scale * (sum(weighted) / divisor)), np.asarray(size), np.ones(base.shape, bool))


def elected(base: Array, task_vectors: Sequence[Array], weights: Numbers, normalize: bool, scale: float) -> Merged:
    """ties, dare_ties: only what agrees with the sign of the sum counts; a sum of zero is
    positive."""
    weighted = [w * d for w, d in zip(weights, task_vectors, strict=True)]
    total = np.asarray(sum(weighted))
    exact = (total == 0) & (np.asarray(sum(u.astype(np.float32) for u in weighted)) == 0)
    sure = exact | (np.abs(total) > 1e-5 * sum(np.abs(u) for u in weighted))
    sign = np.where(total >= 0, 1, -1)
    agree = [np.sign(u) == sign for u in weighted]
    merged = np.asarray(sum(np.where(k, u, 0) for k, u in zip(agree, weighted, strict=True)))
    divisor = np.ones(base.shape)
    if normalize:
        divisor = np.asarray(sum(np.where(k, w, 0.0) for k, w in zip(agree, weights, strict=True)))
        # weights of both signs may cancel up to rounding
        sure &= (divisor == 0) | (np.abs(divisor) > 1e-5)
        divisor = np.where(divisor == 0, 1, divisor)
    size = np.abs(base) + np.abs(scale / divisor) * sum(np.abs(u) for u in weighted)
    return Merged(np.asarray(base + scale * (merged / divisor)), np.asarray(size), sure)


# --- which elements ------------------------------------------------------------------------------


def largest(x: Array, density: float) -> Mask:
    """max(1, int(density·n)) elements of largest magnitude; of equals the first."""
    if density >= 1 or x.size == 0:
        return np.ones(x.shape, bool)
    mask = np.zeros(x.size, bool)
    if density > 0:
        order = sorted(range(x.size), key=lambda i: (-abs(x.ravel()[i]), i))
        mask[order[: max(1, int(density * x.size))]] = True
    return mask.reshape(x.shape)


def rescaled(x: Array, sparse: Array, density: float, mode: str | None) -> Array:
    """Density 1 or more leaves a task vector as it is, 0 leaves nothing."""
    if mode is None or density >= 1 or density <= 0:
        return sparse
    if mode == "inv_density":
        return sparse / density
    norm = {
        "l1": lambda v: math.fsum(np.abs(v).ravel()),
        "l2": lambda v: math.sqrt(math.fsum((v * v).ravel())),
        "linf": lambda v: float(np.abs(v).max(initial=0.0)),
    }[mode]
    before, after = norm(x), norm(sparse)
    return sparse if min(before, after) < 1e-7 else sparse * (before / after)


def key_of(seed: int, tensor: str, model: str, stream: str = "") -> int:
    """BLAKE2b, 64 bits, of the four parts as UTF-8, each behind its length in 8 bytes; lowest byte
    first throughout."""
    text = b""
    for part in (str(seed), tensor, model, stream):
        text += len(part.encode()).to_bytes(8, "little") + part.encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def kept(key: int, density: float, count: int) -> Mask:
    """Element i is kept where the upper 24 bits of splitmix64's i-th output, as a fraction, are
    below the density."""
    bound = float(np.float32(density))
    return np.array([(splitmix64(key, i) >> 40) / 2**24 < bound for i in range(count)], bool)


def splitmix64(key: int, index: int) -> int:
    wrap = (1 << 64) - 1
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) & wrap
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & wrap
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & wrap
    return z ^ (z >> 31)
