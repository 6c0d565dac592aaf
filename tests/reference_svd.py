"""Methods on whole matrices once more: naive float64 numpy from their definitions. Shares no code
with mergec.

All take task vectors of equal shape and give the merged task vector, but for `rotate` and
`crossover`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from reference import Array, largest


def svd(x: Array) -> tuple[Array, Array, Array]:
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return u, s, vh


def polar(x: Array) -> Array:
    u, s, vh = svd(x)
    keep = s > 1e-6 * s.max(initial=0)
    return np.asarray(u[:, keep] @ vh[keep])


def tsv_merge(deltas: Sequence[Array]) -> Array:
    if len(deltas) == 1:
        return deltas[0]
    k = min(deltas[0].shape) // len(deltas)
    if k == 0:
        return np.zeros_like(deltas[0])
    found = []
    for u, s, vh in map(svd, deltas):
        kept = [j for j in range(k) if s[j] > 1e-6 * s[0]]
        found.append((u[:, kept], s[kept], vh[kept]))
    u = np.concatenate([u for u, _, _ in found], axis=1)
    s = np.concatenate([s for _, s, _ in found])
    vh = np.concatenate([vh for _, _, vh in found])
    return np.asarray(polar(u) @ np.diag(s) @ polar(vh))


def iso_c(deltas: Sequence[Array]) -> Array:
    u, s, vh = svd(np.asarray(sum(deltas)))
    return np.asarray(s.mean() * u @ vh)


def iso_cts(deltas: Sequence[Array], common: float) -> Array:
    total, r, count = np.asarray(sum(deltas)), min(deltas[0].shape), len(deltas)
    k = min(round((r - int(r * common)) / count), r // count)
    kc = r - k * count
    u, s, vh = svd(total)
    uc, sc, vc = u[:, :kc], s[:kc], vh[:kc]
    own = [svd(d - uc @ uc.T @ d) for d in deltas]
    left = np.concatenate([*(u[:, :k] for u, _, _ in own), uc], axis=1)
    right = np.concatenate([*(vh[:k] for _, _, vh in own), vc])
    level = np.concatenate([*(s[:k] for _, s, _ in own), sc]).mean()
    return np.asarray(level * polar(left) @ polar(right))


def star(deltas: Sequence[Array], eta: float) -> Array:
    kept = []
    for d in deltas:
        u, s, vh = svd(d)
        q = 1
        while q < s.size and s[:q].sum() < eta / 100 * s.sum():
            q += 1
        scale = s.sum() / s[:q].sum() if s.sum() else 0.0
        kept.append(u[:, :q] @ np.diag(scale * s[:q]) @ vh[:q])
    return np.asarray(sum(kept) / len(kept))


def knots(deltas: Sequence[Array], inner: Callable[[list[Array]], Array], tolerance: float = 1e-5) -> Array:
    u, s, vh = svd(np.concatenate(deltas, axis=1))
    keep = s > tolerance
    coordinates = np.diag(s[keep]) @ vh[keep]
    return np.asarray(u[:, keep] @ inner(np.split(coordinates, len(deltas), axis=1)))


def ties(parts: list[Array], weights: Sequence[float], density: float) -> Array:
    weighted = [w * np.where(largest(p, density), p, 0) for w, p in zip(weights, parts, strict=True)]
    sign = np.where(sum(weighted) >= 0, 1, -1)
    agree = [np.sign(u) == sign for u in weighted]
    divisor = np.asarray(sum(np.where(a, w, 0.0) for a, w in zip(agree, weights, strict=True)))
    merged = np.asarray(sum(np.where(a, u, 0) for a, u in zip(agree, weighted, strict=True)))
    return np.asarray(merged / np.where(divisor == 0, 1, divisor))


def truncate_rank(d: Array, rank: int) -> Array:
    u, s, vh = svd(d)
    return np.asarray(u[:, :rank] @ np.diag(s[:rank]) @ vh[:rank])


def rotate(a: Array, b: Array, alignment: float, alpha: float) -> Array:
    shape = a.shape
    kernel = shape[2:] if shape[-1] != 1 else shape[1:]
    columns = int(np.prod(kernel)) if a.ndim == 4 else shape[-1]
    a, b = a.reshape(-1, columns), b.reshape(-1, columns)
    mean_a, mean_b = a.mean(0), b.mean(0)
    a, b = a - mean_a, b - mean_b
    u, _, vh = np.linalg.svd(a.T @ b)
    q = u @ vh
    if alignment != round(alignment) and np.linalg.det(q) < 0:
        u[:, -1] *= -1
        q = u @ vh
    mixed = (1 - alpha) * a + alpha * b @ q.T
    values, vectors = np.linalg.eig(q)
    power = (vectors @ np.diag(values.astype(complex) ** alignment) @ np.linalg.inv(vectors)).real
    return np.asarray((mixed @ power + (1 - alignment) * mean_a + alignment * mean_b).reshape(shape))


def crossover(a: Array, b: Array, alpha: float, tilt: float) -> Array:
    """By full transforms, each frequency with its negative."""
    if a.ndim == 0:
        return crossover(a.reshape(1), b.reshape(1), alpha, tilt).reshape(())
    axes = [np.abs(np.fft.fftfreq(n) * n) / max(1, n // 2) for n in a.shape]
    mesh = np.sqrt(np.mean(np.stack(np.meshgrid(*[x * x for x in axes], indexing="ij")), axis=0))
    if alpha in (0, 1) or tilt == 1:
        share: NDArray[np.float64] = np.full(a.shape, float(alpha))
    elif tilt == 0:
        share = (mesh > 1 - alpha).astype(np.float64)
    else:
        c = 1 / np.tan(np.pi * tilt / 2)
        share = np.clip(c * mesh + c * alpha + alpha - c, 0, 1)
    return np.asarray(np.fft.ifftn((1 - share) * np.fft.fftn(a) + share * np.fft.fftn(b)).real)


def interference_gradient(m: Array, deltas: Sequence[Array]) -> Array:
    return np.asarray(sum(2 * (m - d) @ d.T @ d / (d * d).sum() for d in deltas if d.any()) + np.zeros_like(m))


def wudi_adam(deltas: Sequence[Array], iters: int, lr: float) -> Array:
    m = np.asarray(sum(deltas))
    first, second = np.zeros_like(m), np.zeros_like(m)
    for step in range(1, iters + 1):
        gradient = interference_gradient(m, deltas)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        m = m - lr * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return m


def wudi_closed(deltas: Sequence[Array]) -> Array:
    grams = [d.T @ d / (d * d).sum() for d in deltas if d.any()]
    live = [d for d in deltas if d.any()]
    if not live:
        return np.zeros_like(deltas[0])
    pulled = sum(d @ g for d, g in zip(live, grams, strict=True))
    return np.asarray(pulled @ np.linalg.pinv(sum(grams), rcond=1e-12, hermitian=True))
