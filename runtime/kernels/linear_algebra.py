"""Kernels on whole matrices, by singular values. Definitions are in the methods' files, `stdlib/*.mrg`."""

# ruff: noqa: ARG001 - all kernels have one signature

from __future__ import annotations

import torch

from ...compiler.shapes import neurons, shared_parts
from ..reductions import Attributes
from .decompositions import finite_only, svd

Tensors = tuple[torch.Tensor, ...]
Numbers = tuple[float, ...]


@finite_only
def svd_truncate(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """The best approximation of a rank; that or more of singular values gives the matrix itself."""
    (x,), rank = inputs, max(0, int(numbers[0]))
    if rank >= min(x.shape):
        out.copy_(x)
        return
    u, s, vh = svd(x)
    torch.matmul(u[:, :rank] * s[:rank], vh[:rank], out=out)


@finite_only
def svd_nuclear(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """The fewest leading singular values whose sum reaches a share of all, scaled up to the sum of all."""
    u, s, vh = svd(inputs[0])
    sums = s.double().cumsum(0)
    kept = min(int(torch.searchsorted(sums, numbers[0] * sums[-1:])) + 1, s.numel())
    scale = float(sums[-1] / sums[kept - 1]) if sums[-1] else 0.0
    torch.matmul(u[:, :kept] * (scale * s[:kept]), vh[:kept], out=out)


@finite_only
def svd_flatten(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """Every singular value replaced by the mean of all."""
    u, s, vh = svd(inputs[0])
    torch.matmul(u.mul_(s.mean(dtype=torch.float64).to(s.dtype)), vh, out=out)


@finite_only
def svd_shared(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """[x₁ | … | x_T] = U·[C₁ | … | C_T] with C = diag(σ)Vᵀ, packed as `compiler/shapes.py` says; in float64.

    Rows of C and columns of U whose singular value is no more than the tolerance are 0.
    """
    shapes = [tuple(x.shape) for x in inputs]
    columns = shapes[0][1]
    u, s, vh = svd(torch.cat([x.double() for x in inputs], dim=1))
    kept = (s > numbers[0]).to(s.dtype)
    u.mul_(kept)
    vh.mul_((s * kept).unsqueeze(1))
    made = [u, *(vh[:, i * columns : (i + 1) * columns] for i in range(len(inputs)))]
    for (first, shape), part in zip(shared_parts(shapes), made, strict=True):
        out[first : first + part.numel()].view(shape).copy_(part)


@finite_only
def matmul(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    torch.matmul(inputs[0], inputs[1], out=out)


@finite_only
def procrustes_blend(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """((1 - alpha)·A + alpha·B·Qᵀ)·Q^alignment for centred rows A, B and the rotation Q that takes A nearest to B.

    The mean is added back, `alignment` of the way from a's to b's.
    """
    alignment, alpha = numbers
    a, b = (x.reshape(neurons(tuple(x.shape))) for x in inputs)
    middle_a, middle_b = (x.mean(0, dtype=torch.float64).to(x.dtype) for x in (a, b))
    a, b = a - middle_a, b - middle_b
    whole = alignment == round(alignment)
    rotation = _rotation(a.T @ b, proper=not whole)
    if alpha:
        a.mul_(1 - alpha).add_(b @ rotation.T, alpha=alpha)
    power = torch.linalg.matrix_power(rotation, round(alignment)) if whole else _power(rotation, alignment)
    turned = torch.matmul(a, power, out=b)
    turned.add_(middle_a, alpha=1 - alignment).add_(middle_b, alpha=alignment)
    out.copy_(turned.view(out.shape))


def _rotation(product: torch.Tensor, proper: bool) -> torch.Tensor:
    """The orthogonal matrix nearest to a square one; without a reflection, whose fractional powers are not real."""
    u, _, vh = svd(product)
    rotation = u @ vh
    if proper and torch.linalg.det(rotation.double()) < 0:
        rotation.addr_(u[:, -1], vh[-1], alpha=-2)
    return rotation


def _power(rotation: torch.Tensor, exponent: float) -> torch.Tensor:
    values, vectors = torch.linalg.eig(rotation.double())
    powered = torch.linalg.solve(vectors.T, (vectors * values.pow(exponent)).T).T
    return torch.real(powered).to(rotation.dtype).contiguous()
