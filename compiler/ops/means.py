"""Centers of a few points by iteration: kernels of the scalar ops `karcher` and `geometric_median`.

Such an iterate is always a combination of the points. Its lengths, angles and distances follow from
the inner products of the points, so one pass over the weights gives all that the iteration needs:
N(N+1)/2 numbers per tensor. What comes out are the factors of the points, one per op; all ops of a
tensor share one run of the iteration.

Products are the upper triangle of their matrix, row by row: ⟨x₁,x₁⟩, ⟨x₁,x₂⟩, …, ⟨x₂,x₂⟩, …
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

Vector = list[float]


def karcher(index: float, max_iter: float, tol: float, *rest: float) -> float:
    """The factor of point `index` in the weighted Karcher mean of the directions, at the weighted
    mean of the norms.

    `rest` is a weight for each point, then the products. Points of norm up to `tol` have no
    direction, but their norms count. NaN where a product is not finite.
    """
    # n weights and n(n+1)/2 products
    count = (math.isqrt(9 + 8 * len(rest)) - 3) // 2
    return _karcher(int(max_iter), tol, rest[:count], rest[count:])[int(index)]


def geometric_median(index: float, maxiter: float, eps: float, ftol: float, *products: float) -> float:
    """The factor of point `index` in the point with the least sum of distances to all; the factors
    add up to 1.

    Weiszfeld's iteration from the mean: factors in proportion to 1/max(distance, `eps`), until the
    mean distance changes by no more than `ftol` of itself. NaN where a product is not finite.
    """
    return _geometric_median(int(maxiter), eps, ftol, products)[int(index)]


@functools.lru_cache(maxsize=4)
def _karcher(max_iter: int, tol: float, weights: tuple[float, ...], products: tuple[float, ...]) -> tuple[float, ...]:
    if not all(map(math.isfinite, products)):
        return (math.nan,) * len(weights)
    gram = _matrix(products)
    norms = [math.sqrt(max(0.0, gram[i][i])) for i in range(len(weights))]
    some = [i for i, norm in enumerate(norms) if norm > tol and weights[i] != 0]
    total, directed = math.fsum(weights), math.fsum(weights[i] for i in some)
    if not some or total == 0 or directed == 0:
        return (0.0,) * len(weights)
    cosines = [[gram[i][j] / (norms[i] * norms[j]) for j in some] for i in some]
    mean = _mean_direction([weights[i] / directed for i in some], cosines, max_iter, tol)
    scale = math.fsum(w * norm for w, norm in zip(weights, norms, strict=True)) / total
    factors = [0.0] * len(weights)
    for i, share in zip(some, mean, strict=True):
        factors[i] = scale * share / norms[i]
    return tuple(factors)


def _mean_direction(weights: Vector, cosines: list[Vector], max_iter: int, tol: float) -> Vector:
    """The Karcher mean of unit vectors on their sphere, as factors of them: gradient steps from
    their mean's direction.

    A vector opposite to the iterate has no one direction from it and is skipped in the step.
    """
    length = _length(weights, cosines)
    mean = [w / length for w in weights] if length > tol else [1.0] + [0.0] * (len(weights) - 1)
    for _ in range(max_iter):
        step = [0.0] * len(mean)
        for i, row in enumerate(cosines):
            cosine = min(1.0, max(-1.0, _product(row, mean)))
            angle = math.acos(cosine)
            if angle <= tol or math.pi - angle <= tol:
                continue
            pull = weights[i] * angle / math.sin(angle)
            step = [s - pull * cosine * m for s, m in zip(step, mean, strict=True)]
            step[i] += pull
        far = _length(step, cosines)
        if far <= tol:
            break
        mean = [math.cos(far) * m + math.sin(far) / far * s for m, s in zip(mean, step, strict=True)]
        length = _length(mean, cosines)
        mean = [m / length for m in mean]
    return mean


@functools.lru_cache(maxsize=4)
def _geometric_median(maxiter: int, eps: float, ftol: float, products: tuple[float, ...]) -> tuple[float, ...]:
    count = (math.isqrt(1 + 8 * len(products)) - 1) // 2
    if not all(map(math.isfinite, products)):
        return (math.nan,) * count
    gram = _matrix(products)
    factors = [1 / count] * count
    distances = _distances(factors, gram)
    for _ in range(maxiter):
        pulls = [1 / max(d, eps) for d in distances]
        total = math.fsum(pulls)
        factors = [p / total for p in pulls]
        before, distances = math.fsum(distances), _distances(factors, gram)
        after = math.fsum(distances)
        if abs(before - after) <= ftol * after:
            break
    return tuple(factors)


def _distances(factors: Vector, gram: list[Vector]) -> Vector:
    """From each point to the combination of all."""
    out = []
    for i in range(len(factors)):
        away = [-f for f in factors]
        away[i] += 1
        out.append(_length(away, gram))
    return out


def _matrix(products: Sequence[float]) -> list[Vector]:
    """The whole symmetric matrix."""
    count = (math.isqrt(1 + 8 * len(products)) - 1) // 2
    matrix = [[0.0] * count for _ in range(count)]
    given = iter(products)
    for i in range(count):
        for j in range(i, count):
            matrix[i][j] = matrix[j][i] = next(given)
    return matrix


def _length(factors: Vector, gram: list[Vector]) -> float:
    """The norm of a combination of points."""
    return math.sqrt(max(0.0, math.fsum(f * _product(row, factors) for f, row in zip(factors, gram, strict=True))))


def _product(a: Vector, b: Vector) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))
