"""Kernels that put the leading singular directions of several matrices side by side and make them
orthogonal."""

# ruff: noqa: ARG001 - all kernels have one signature

from __future__ import annotations

import torch

from ...reduce.reducer import Attributes
from .decompositions import SMALL, finite_only, polar, svd

Tensors = tuple[torch.Tensor, ...]
Numbers = tuple[float, ...]


@finite_only
def singular_merge(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """polar(U)·diag(σ)·polar(V)ᵀ of the r // T leading triplets of each of T matrices; one matrix
    is itself.

    A matrix that lacks rank has fewer: where σ is next to 0, directions are the decomposition's,
    not the matrix's.
    """
    if len(inputs) == 1:
        out.copy_(inputs[0])
        return
    each = min(out.shape) // len(inputs)
    if not each:
        out.zero_()
        return
    u, s, vh = _joined([_of_weight(_leading(x, each)) for x in inputs])
    torch.matmul(polar(u) * s, polar(vh), out=out)


@finite_only
def isotropic_merge(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """Directions of each matrix (m, n) outside the leading ones of the sum, then those: orthogonal,
    all at one value.

    The number is `common`, the share of directions that are the sum's.
    """
    rank, count = min(out.shape), len(inputs)
    each = min(round((rank - int(rank * numbers[0])) / count), rank // count)
    shared = rank - each * count
    total = torch.zeros_like(out)
    for x in inputs:
        total.add_(x)
    common = _leading(total, shared)
    parts = []
    for x in inputs if each else ():
        torch.sub(x, common[0] @ (common[0].T @ x), out=total)
        parts.append(_leading(total, each))
    u, s, vh = _joined([*parts, common])
    torch.matmul(polar(u) * s.mean(dtype=torch.float64).to(s.dtype), polar(vh), out=out)


Triplets = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _leading(x: torch.Tensor, count: int) -> Triplets:
    """Copies, so that the rest of the factors can go."""
    u, s, vh = svd(x)
    return u[:, :count].clone(), s[:count].clone(), vh[:count].clone()


def _of_weight(triplets: Triplets) -> Triplets:
    u, s, vh = triplets
    rank = int((s > SMALL * s[:1]).sum())
    return u[:, :rank], s[:rank], vh[:rank]


def _joined(parts: list[Triplets]) -> Triplets:
    return (
        torch.cat([u for u, _, _ in parts], 1),
        torch.cat([s for _, s, _ in parts]),
        torch.cat([v for _, _, v in parts]),
    )
