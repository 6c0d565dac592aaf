"""More merge methods, as `reference.py` has its own: naive, whole tensors, float64 numpy, from
their definitions.

Iterations run on the tensors themselves, not on inner products as mergec's do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reference import Array, Mask, Merged, Numbers, deltas, rescaled


def everywhere(x: Array, sure: bool) -> Mask:
    return np.full(x.shape, sure)


def norm(x: Array) -> float:
    return math.sqrt(math.fsum((x * x).ravel()))


def inner(x: Array, y: Array) -> float:
    return math.fsum((x * y).ravel())


def weighted(xs: Sequence[Array], weights: Numbers) -> Array:
    return np.asarray(sum(w * x for w, x in zip(weights, xs, strict=True)))


def pieces(shape: tuple[int, ...], along: str) -> list[Any]:
    """Indices of the parts that count for themselves: all, rows of the last axis or columns of the
    first."""
    if along == "tensor" or len(shape) < 2:
        return [...]
    if along == "row":
        return list(np.ndindex(shape[:-1]))
    return [(slice(None), *at) for at in np.ndindex(shape[1:])]


# --- directions ----------------------------------------------------------------------------------


def nuslerp(a: Array, b: Array, weights: Numbers, base: Array | None, along: str, guard: float = 1e-6) -> Merged:
    t = 0.5 if abs(sum(weights)) < 1e-6 else weights[1] / sum(weights)
    x, y = (a, b) if base is None else deltas([a, b], base)
    start = np.zeros(a.shape) if base is None else base
    value, size, sure = np.zeros(a.shape), np.zeros(a.shape), everywhere(a, True)
    for at in pieces(a.shape, along):
        p, q = x[at], y[at]
        c = inner(p, q) / (max(norm(p), 1e-7) * max(norm(q), 1e-7))
        c = max(-1.0, min(1.0, c))
        sure[at] = abs(1 - abs(c) - guard) > 2e-7
        if 1 - abs(c) <= guard:
            value[at] = (1 - t) * p + t * q
            size[at] = (abs(t) + abs(1 - t)) * (np.abs(p) + np.abs(q))
        else:
            (u, from_p), (v, from_q) = along_arc(1 - t, c), along_arc(t, c)
            value[at] = u * p + v * q
            size[at] = from_p * np.abs(p) + from_q * np.abs(q)
    return Merged(start + value, np.abs(start) + size, sure)


def along_arc(share: float, c: float) -> tuple[float, float]:
    """The factor sin(share·φ) / sin φ where c = cos φ, and what errors of size 1 in it, c and
    share·φ come to.

    Between nearly opposite tensors a factor grows as 1 / sin φ, and with it the cube of that for
    what c is off by.
    """
    angle = math.acos(c)
    turned, sine = share * angle, math.sin(angle)
    factor = math.sin(turned) / sine
    by_cosine = (math.sin(turned) * c - share * math.cos(turned) * sine) / sine**3
    return factor, abs(factor) + abs(by_cosine) + abs(turned) / sine


def multislerp(
    models: Sequence[Array], weights: Numbers, base: Array | None, normalize: bool, eps: float = 1e-8
) -> Merged:
    """With the tangent step that mergec leaves out."""
    w = [x / sum(weights) for x in weights] if normalize else list(weights)
    points = list(models) if base is None else deltas(models, base)
    start = np.zeros(models[0].shape) if base is None else base
    units = [x / (norm(x) + eps) for x in points]
    mean = weighted(units, w)
    size = np.abs(start) + sum(abs(f) * np.abs(x) for f, x in zip(w, points, strict=True))
    if norm(mean) < max(eps, 1e-6 * sum(abs(f) for f in w)):
        return Merged(start + weighted(points, w), size, everywhere(start, True))
    direction = mean / norm(mean)
    step = weighted([u - inner(u, direction) * direction for u in units], w)
    length = norm(step) + eps
    scale = sum(f * norm(x) for f, x in zip(w, points, strict=True))
    value = scale * (direction * math.cos(length) + step * (math.sin(length) / length))
    size = size + abs(scale) * sum(abs(f) * np.abs(u) for f, u in zip(w, units, strict=True)) / norm(mean)
    return Merged(start + value, np.asarray(size), everywhere(start, norm(mean) > 1e-3))


def karcher(models: Sequence[Array], weights: Numbers, max_iter: int = 10, tol: float = 1e-5) -> Merged:
    if len(models) == 1:
        return Merged(models[0], np.abs(models[0]), everywhere(models[0], True))
    shares = [w / sum(weights) for w in weights]
    scale = sum(s * norm(x) for s, x in zip(shares, models, strict=True))
    some = [(s, x / norm(x)) for s, x in zip(shares, models, strict=True) if norm(x) > tol and s]
    size = np.asarray(5 * sum(np.abs(x) for x in models) + scale)
    if not some:
        return Merged(np.zeros(models[0].shape), size, everywhere(size, True))
    whole = sum(s for s, _ in some)
    some = [(s / whole, x) for s, x in some]
    mean = weighted([x for _, x in some], [s for s, _ in some])
    sure = not tol < norm(mean) < 1e-2
    mean = mean / norm(mean) if norm(mean) > tol else some[0][1]
    for _ in range(max_iter):
        step = np.zeros(mean.shape)
        for s, x in some:
            angle = math.acos(max(-1.0, min(1.0, inner(mean, x))))
            sure &= angle <= tol or not 1e-7 < math.pi - angle < 1e-2
            if tol < angle < math.pi - tol:
                step = step + s * angle / math.sin(angle) * (x - math.cos(angle) * mean)
        far = norm(step)
        if far <= tol:
            break
        mean = math.cos(far) * mean + math.sin(far) * step / far
        mean = mean / norm(mean)
    return Merged(scale * mean, size, everywhere(size, sure))


def geometric_median(
    models: Sequence[Array], eps: float = 1e-6, maxiter: int = 100, ftol: float = 1e-20
) -> tuple[Array, Array]:
    """(value, size)."""
    median = np.asarray(sum(models) / len(models))
    total = sum(norm(x - median) for x in models)
    for _ in range(maxiter):
        pulls = [1 / max(norm(x - median), eps) for x in models]
        median = weighted(models, [p / sum(pulls) for p in pulls])
        before, total = total, sum(norm(x - median) for x in models)
        if abs(before - total) <= ftol * total:
            break
    return median, np.asarray(sum(np.abs(x) for x in models))


def model_stock(
    models: Sequence[Array], base: Array, along: str, bounds: Sequence[float] | None, floor: float = 1e-30
) -> Merged:
    moved, count = deltas(models, base), len(models)
    value, size, sure = base.copy(), np.array(np.abs(base)), np.ones(base.shape, bool)
    for at in pieces(base.shape, along):
        rows = [d[at] for d in moved]
        pairs = [(rows[i], rows[j]) for i in range(count) for j in range(i)]
        c = sum(max(-1.0, min(1.0, inner(x, y) / max(norm(x) * norm(y), floor))) for x, y in pairs) / len(pairs)
        divisor = 1 + (count - 1) * c
        t = 0.0 if abs(divisor) < 1e-6 else count * c / divisor
        if bounds is not None:
            t = min(bounds[1], max(bounds[0], t))
        mean = sum(m[at] for m in models) / count
        value[at] = t * mean + (1 - t) * base[at]
        blur = (1 + abs(t)) / max(abs(divisor), 1e-6) + abs(t)
        size[at] += blur * sum(np.abs(r) for r in rows) + (abs(t) + 1) * np.abs(base[at]) * 0.01
        sure[at] = abs(divisor) < 1e-7 or abs(divisor) > 1e-3
    return Merged(value, size, sure)


# --- which elements ------------------------------------------------------------------------------


def bands(
    models: Sequence[Array], base: Array, densities: Numbers, gammas: Numbers, rescale: str | None
) -> list[Array]:
    return [
        rescaled(d, np.where(band(d, p, g), d, 0), p, rescale)
        for d, p, g in zip(deltas(models, base), densities, gammas, strict=True)
    ]


def band(x: Array, density: float, gamma: float) -> Mask:
    """Ascending ranks [bottom, bottom + kept); of equals the last come first."""
    n = x.size
    kept, top = int(density * n), int(gamma * n)
    bottom = max(0, n - kept - top)
    order = sorted(range(n), key=lambda i: (abs(x.ravel()[i]), -i))
    mask = np.zeros(n, bool)
    mask[order[bottom : bottom + kept]] = True
    return mask.reshape(x.shape)


def sce(models: Sequence[Array], base: Array, share: float, floor: float) -> Merged:
    """The variance is in float32, because which elements rank highest is decided by it."""
    moved = deltas(models, base)
    count = len(models)
    size = np.abs(base) + sum(np.abs(d) for d in moved)
    if share < 1:
        chosen = most(variance(moved), share)
        moved = [np.where(chosen, d, 0) for d in moved]
    energies = [inner(d, d) / max(1, d.size) for d in moved]
    shares = [1 / count] * count if sum(energies) <= floor else [e / sum(energies) for e in energies]
    total = np.asarray(sum(moved))
    exact = (total == 0) & (np.asarray(sum(d.astype(np.float32) for d in moved)) == 0)
    sure = exact | (np.abs(total) > 1e-5 * sum(np.abs(d) for d in moved))
    sign = np.where(total >= 0, 1, -1)
    agree = [np.sign(d) == sign for d in moved]
    merged = np.asarray(sum(np.where(k, s * d, 0) for k, s, d in zip(agree, shares, moved, strict=True)))
    divisor = np.maximum(np.asarray(sum(np.where(k, s, 0) for k, s in zip(agree, shares, strict=True))), 1e-6)
    return Merged(base + merged / divisor, np.asarray(size), sure)


def variance(xs: Sequence[Array]) -> NDArray[np.float32]:
    ascending = np.sort(np.stack([x.astype(np.float32) for x in xs]), axis=0)
    count, offsets = np.float32(len(xs)), [x - ascending[0] for x in ascending]
    squares = np.asarray(sum(o * o for o in offsets))
    return np.asarray((count * squares - np.square(np.asarray(sum(offsets)))) / (count * count), np.float32)


def most(v: NDArray[np.float32], share: float) -> Mask:
    """int(#{v ≠ 0}·share) elements of largest v, of equals the first."""
    mask = np.zeros(v.size, bool)
    order = sorted(range(v.size), key=lambda i: (-v.ravel()[i], i))
    mask[order[: int(np.count_nonzero(v) * share)]] = True
    return mask.reshape(v.shape)


def ramplus(models: Sequence[Array], base: Array, r: float, alpha: float, epsilon: float = 1e-5) -> Merged:
    """With r=0 plain `ram`."""
    moved = deltas(models, base)
    active = [np.abs(d) > epsilon for d in moved]
    holders = np.asarray(sum(a.astype(int) for a in active))
    change = np.zeros(base.shape)
    for a, d in zip(active, moved, strict=True):
        unique, shared = np.count_nonzero(a & (holders == 1)), np.count_nonzero(a & (holders > 1))
        scale = 1 + r * min(shared / max(float(unique), epsilon), alpha)
        change += np.where(a & (holders == 1), scale * d, 0) + np.where(
            a & (holders > 1), d / np.maximum(holders, 1), 0
        )
    size = np.abs(base) + sum(np.abs(d) for d in moved)
    return Merged(base + change, np.asarray(size), everywhere(base, True))


def consensus(models: Sequence[Array], base: Array, shares: Numbers, k: int, alpha: float) -> Merged:
    moved = deltas(models, base)
    total = np.asarray(sum(moved))
    count, sure = np.zeros(base.shape, int), np.ones(base.shape, bool)
    for d, share in zip(moved, shares, strict=True):
        mask, certain = matters(d, total, share)
        count += mask
        sure &= certain
    size = np.abs(base) + abs(alpha) * sum(np.abs(d) for d in moved)
    return Merged(base + alpha * np.where(count >= k, total, 0), np.asarray(size), sure)


def tall(models: Sequence[Array], base: Array, share: float, task: int) -> Merged:
    moved = deltas(models, base)
    total = np.asarray(sum(moved))
    mask, sure = matters(moved[task], total, share)
    size = np.abs(base) + sum(np.abs(d) for d in moved)
    return Merged(base + np.where(mask, total, 0), np.asarray(size), sure)


def matters(delta: Array, total: Array, share: float) -> tuple[Mask, Mask]:
    rest = share * np.abs(total - delta)
    return np.abs(delta) > rest, np.abs(np.abs(delta) - rest) > 1e-5 * (np.abs(total) + np.abs(delta))


def magmax(models: Sequence[Array], base: Array, scale: float) -> tuple[Array, Array]:
    chosen = np.zeros(base.shape)
    for d in deltas(models, base):
        chosen = np.where(np.abs(d) >= np.abs(chosen), d, chosen)
    return base + scale * chosen, np.abs(base) + np.abs(scale * chosen)


def emr(models: Sequence[Array], base: Array) -> Merged:
    moved = deltas(models, base)
    total = np.asarray(sum(moved))
    sign = np.where(total > 0, 1, -1)
    largest = np.max([np.where(d * sign > 0, np.abs(d), 0) for d in moved], axis=0)
    exact = (total == 0) & (np.asarray(sum(d.astype(np.float32) for d in moved)) == 0)
    sure = exact | (np.abs(total) > 1e-5 * sum(np.abs(d) for d in moved))
    return Merged(base + sign * largest, np.abs(base) + largest, sure)


def stitched(models: Sequence[Array], base: Array, masks: Sequence[Mask]) -> tuple[Array, Array]:
    moved = [np.where(m, d, 0) for m, d in zip(masks, deltas(models, base), strict=True)]
    overlap = np.maximum(np.asarray(sum(m.astype(int) for m in masks)), 1)
    return base + sum(moved) / overlap, np.abs(base) + sum(np.abs(d) for d in moved)


# --- by element ----------------------------------------------------------------------------------


def nearswap(a: Array, b: Array, t: float) -> Array:
    w = np.clip(t / np.maximum(np.abs(a - b), 1e-6), 0, 1)
    return w * b + (1 - w) * a


def perpendicular(x: Array, y: Array) -> Array:
    return y - x * (inner(x, y) / inner(x, x)) if inner(x, x) else np.zeros(x.shape)


def fraction(x: Array, y: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.where(y == 0, 0, x / y)


def train_difference(a: Array, b: Array, c: Array, alpha: float) -> Array:
    return a + 1.8 * alpha * fraction(np.abs(b - a), np.abs(b - a) + np.abs(b - c)) * (b - c)


def add_opposite(a: Array, b: Array, c: Array, alpha: float) -> Array:
    return a + 2 * alpha * fraction(np.abs(a - b), np.abs(a - b) + np.abs(a + b - 2 * c)) * (b - c)


def add_strict_opposite(a: Array, b: Array, c: Array, alpha: float) -> Array:
    larger = np.maximum(np.abs(a - c), np.abs(b - c))
    return a + 2 * alpha * np.maximum(0, fraction((c - a) * (b - c), larger**2)) * (b - c)


def ema(models: Sequence[Array], beta: float) -> Array:
    value = models[0]
    for x in models[1:]:
        value = beta * value + (1 - beta) * x
    return value


def clamped(a: Array, bounds: Sequence[Array], stiffness: float) -> Array:
    stacked = np.stack(bounds)
    middle = stacked.mean(axis=0)
    above = np.where(stacked >= middle, stacked, np.inf).min(axis=0)
    below = np.where(stacked <= middle, stacked, -np.inf).max(axis=0)
    lower = (1 - stiffness) * stacked.min(axis=0) + stiffness * below
    upper = (1 - stiffness) * stacked.max(axis=0) + stiffness * above
    return np.asarray(np.minimum(np.maximum(a, lower), upper))
