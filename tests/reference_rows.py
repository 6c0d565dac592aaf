"""Merge methods that look along rows or columns, as `reference.py` has others: naive, float64, from
definitions.

Which elements a threshold or a probability decides on is unsure where rounding in float32 could tip
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from reference import Array, Merged, Numbers, deltas, rescaled, splitmix64
from reference_more import everywhere, inner, norm, nuslerp


def rows(x: Array) -> list[tuple[int | slice, ...]]:
    """The index of every row of the last axis; a tensor of up to one axis is one row."""
    return [()] if x.ndim < 2 else list(np.ndindex(x.shape[:-1]))


def columns(x: Array) -> list[tuple[int | slice, ...]]:
    """The index of every column of the first axis."""
    return [()] if x.ndim == 0 else [(slice(None), *at) for at in np.ndindex(x.shape[1:])]


def ranks(x: Array) -> Array:
    """From 0 for a row's smallest to 1 for its largest; of equals the first is lower. 1/2 for the
    only one of a row."""
    out = np.full(x.shape, 0.5)
    for at in rows(x):
        row = np.atleast_1d(x[at])
        if row.size > 1:
            order = sorted(range(row.size), key=lambda i: (row[i], i))
            out[at][order] = np.arange(row.size) / (row.size - 1)
    return out


# --- della ---------------------------------------------------------------------------------------


def pruned(delta: Array, density: float, epsilon: float, rescale: str | None, key: int) -> tuple[Array, bool]:
    """What is left of a task vector, and whether that is sure."""
    if density >= 1 or density <= 0:
        return (delta if density >= 1 else np.zeros(delta.shape)), True
    p = density - epsilon + 2 * epsilon * ranks(np.abs(delta))
    u = np.array([(splitmix64(key, i) >> 40) / 2**24 for i in range(delta.size)]).reshape(delta.shape)
    kept = np.where(u < p, delta, 0)
    sure = bool((np.abs(u - p) > 1e-6).all())
    return (kept / p if rescale == "inv_prob" else rescaled(delta, kept, density, rescale)), sure


def della(
    models: Sequence[Array],
    base: Array,
    densities: Numbers,
    epsilons: Numbers,
    rescale: str | None,
    keys: Sequence[int],
    merge: Callable[[list[Array]], Merged],
) -> Merged:
    """`merge` joins the task vectors: `reference.elected` or `reference.combined`."""
    options = zip(deltas(models, base), densities, epsilons, keys, strict=True)
    left = [pruned(d, p, e, rescale, key) for d, p, e, key in options]
    found = merge([d for d, _ in left])
    return Merged(found.value, found.size, found.sure & all(sure for _, sure in left))


# --- arcee_fusion --------------------------------------------------------------------------------


def softmax(x: Array) -> Array:
    grown = np.exp(x - x.max(initial=-math.inf))
    return np.asarray(grown / grown.sum())


def quantile(x: Array, q: float) -> float:
    return float(sorted(x.ravel())[int(q * (x.size - 1))])


def arcee_fusion(a: Array, b: Array) -> Merged:
    if not a.size:
        return Merged(a, a, everywhere(a, True))
    importance = np.asarray(np.abs(b - a))
    for at in rows(a):
        p, q = softmax(b[at]) + 1e-8, softmax(a[at]) + 1e-8
        importance[at] *= (p * np.log(p / q)).sum()
    q1, q2, q3 = (quantile(importance, q) for q in (0.25, 0.5, 0.75))
    threshold = q2 + 1.5 * (q3 - q1)
    sure = np.asarray(np.abs(importance - threshold) > 1e-5 * np.abs(b - a).max())
    if not importance.any() or a.size == 1:
        sure[...] = True
    return Merged(np.where(importance >= threshold, b, a), np.abs(a) + np.abs(b), sure)


# --- along columns -------------------------------------------------------------------------------


def nuslerp_of_columns(a: Array, b: Array, weights: Numbers, base: Array | None) -> Merged:
    """`nuslerp` of each column for itself."""
    value, size, sure = np.zeros(a.shape), np.zeros(a.shape), everywhere(a, True)
    for at in columns(a):
        found = nuslerp(a[at], b[at], weights, None if base is None else base[at], "tensor")
        value[at], size[at], sure[at] = found.value, found.size, found.sure
    return Merged(value, size, sure)


def cosine(x: Array, y: Array) -> float:
    return inner(x, y) / (norm(x) * norm(y)) if norm(x) and norm(y) else 0.0


def add_cosine(a: Array, b: Array, alpha: float, *, whole: bool) -> tuple[Array, Array]:
    """(value, size) of add_cosine_a, or add_cosine_b, which averages with the `whole` tensor's
    cosine."""
    value = np.zeros(a.shape)
    for at in columns(a):
        s = (cosine(a[at], b[at]) + cosine(a, b)) / 2 if whole else cosine(a[at], b[at])
        k = 1 - min(1.0, max(0.0, s - alpha))
        value[at] = (1 - k) * a[at] + k * b[at]
    return value, np.abs(a) + np.abs(b)
