"""Kernels on whole matrices, by singular values. Definitions are in the methods' files,
`stdlib/*.mrg`."""

# ruff: noqa: ARG001 - all kernels have one signature

from __future__ import annotations

import torch

from ....compiler.ops.shapes import neurons, shared_parts
from ...reduce.reducer import Attributes
from .decompositions import finite_only, svd

Tensors = tuple[torch.Tensor, ...]
Numbers = tuple[float, ...]

NEXT_TO_EQUAL = 1e6
"""The share of the largest singular value, inverted, that two are apart at least to have directions
of their own."""


@finite_only
def svd_truncate(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """The best approximation of a `rank` to a matrix (m, n), which is itself where it has no more
    singular values."""
    (x,), rank = inputs, max(0, int(numbers[0]))
    if rank >= min(x.shape):
        out.copy_(x)
        return
    u, s, vh = svd(x)
    torch.matmul(u[:, :rank] * s[:rank], vh[:rank], out=out)


@finite_only
def svd_nuclear(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """The fewest leading singular values of a matrix (m, n) whose sum reaches a `share` of all,
    scaled up to it."""
    u, s, vh = svd(inputs[0])
    sums = s.double().cumsum(0)
    kept = min(int(torch.searchsorted(sums, numbers[0] * sums[-1:])) + 1, s.numel())
    scale = float(sums[-1] / sums[kept - 1]) if sums[-1] else 0.0
    torch.matmul(u[:, :kept] * (scale * s[:kept]), vh[:kept], out=out)


@finite_only
def svd_flatten(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """Every singular value of a matrix (m, n) replaced by the mean of all."""
    u, s, vh = svd(inputs[0])
    torch.matmul(u.mul_(s.mean(dtype=torch.float64).to(s.dtype)), vh, out=out)


@finite_only
def svd_shared(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """[x₁ | … | x_T] = U·[C₁ | … | C_T] with Cᵢ = Uᵀxᵢ, packed as `compiler/ops/shapes.py` says; in
    float64.

    Rows of C and columns of U whose singular value is no more than the tolerance are 0, and so are
    coordinates within the rounding of the decomposition: what is made of C may ask for signs. Of a
    column of U and its negative, that is taken whose largest element is positive.
    """
    places = shared_parts([tuple(x.shape) for x in inputs])
    u, s = svd(torch.cat([x.double() for x in inputs], dim=1))[:2]
    u.mul_((s > numbers[0]).to(s.dtype))
    if u.numel():
        u.mul_(u.gather(0, u.abs().argmax(0, keepdim=True)).sign())
    nothing = _rounding_of_coordinates(s, max(u.shape[0], len(inputs) * inputs[0].shape[1]))

    def store(part: torch.Tensor, number: int) -> None:
        first, shape = places[number]
        out[first : first + part.numel()].view(shape).copy_(part)

    store(u, 0)
    for number, x in enumerate(inputs, 1):
        # one by one, so that equal and opposite inputs have equal and opposite coordinates to the
        # last bit
        coordinates = u.T @ x.double()
        store(coordinates.masked_fill_(coordinates.abs() <= nothing, 0), number)


def _rounding_of_coordinates(s: torch.Tensor, size: int) -> torch.Tensor:
    """For each direction, as a column, what its coordinates may be off by; `size` is the longer
    side.

    A decomposition is that of a matrix off by some size·eps·σ₁, which turns a direction towards
    others the more, the nearer its singular value is to one of theirs (Wedin's theorem). Where two
    are next to equal, any basis of what they span would do, and the bound stays at the resolution
    of float32.
    """
    edges = torch.cat([s.new_full((1,), torch.inf), s, s.new_zeros(1)])
    gaps = torch.minimum(edges[:-2] - s, s - edges[2:])
    amplified = (s[:1] / gaps).nan_to_num(NEXT_TO_EQUAL).clamp(1, NEXT_TO_EQUAL)
    return (torch.finfo(s.dtype).eps * size * s[:1] * amplified).unsqueeze(1)


@finite_only
def matmul(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """The product (m, n) of matrices (m, k) and (k, n)."""
    torch.matmul(inputs[0], inputs[1], out=out)


@finite_only
def procrustes_blend(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """((1 - alpha)·A + alpha·B·Qᵀ)·Q^alignment for centred rows A, B and the rotation Q that takes
    A nearest to B.

    A and B have any one shape and are seen as matrices as `neurons` says; the numbers are
    `alignment` and `alpha`. The mean is added back, `alignment` of the way from a's to b's. The
    rotation solves the orthogonal Procrustes problem (P. H. Schönemann, 1966).
    """
    alignment, alpha = numbers
    a, b = (x.reshape(neurons(tuple(x.shape))) for x in inputs)
    middle_a, middle_b = (x.mean(0, dtype=torch.float64).to(x.dtype) for x in (a, b))
    a, b = a - middle_a, b - middle_b
    integral = alignment == round(alignment)
    rotation = _rotation(a.T @ b, proper=not integral)
    if alpha:
        a.mul_(1 - alpha).add_(b @ rotation.T, alpha=alpha)
    power = torch.linalg.matrix_power(rotation, round(alignment)) if integral else _power(rotation, alignment)
    rotated = torch.matmul(a, power, out=b)
    rotated.add_(middle_a, alpha=1 - alignment).add_(middle_b, alpha=alignment)
    out.copy_(rotated.view(out.shape))


def _rotation(product: torch.Tensor, proper: bool) -> torch.Tensor:
    """The orthogonal matrix nearest to a square one; without a reflection, whose fractional powers
    are not real."""
    u, _, vh = svd(product)
    rotation = u @ vh
    if proper and torch.linalg.det(rotation.double()) < 0:
        rotation.addr_(u[:, -1], vh[-1], alpha=-2)
    return rotation


def _power(rotation: torch.Tensor, exponent: float) -> torch.Tensor:
    values, vectors = torch.linalg.eig(rotation.double())
    powered = torch.linalg.solve(vectors.T, (vectors * values.pow(exponent)).T).T
    return torch.real(powered).to(rotation.dtype).contiguous()
