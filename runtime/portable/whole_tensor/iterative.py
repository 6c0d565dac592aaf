"""The matrix that interferes least with several others: Σ |(M - δᵢ)·δᵢᵀ|² / |δᵢ|² by steps of Adam,
or solved."""

# ruff: noqa: ARG001 - all kernels have one signature

from __future__ import annotations

import torch

from ...reduce.reducer import Attributes
from .decompositions import SMALL, finite_only

Tensors = tuple[torch.Tensor, ...]
Numbers = tuple[float, ...]

DECAY, DECAY_OF_SQUARES, EPSILON = 0.9, 0.999, 1e-8
"""Adam's, with the defaults that everyone uses."""


@finite_only
def interference_descent(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """`iters` steps of Adam (D. P. Kingma and J. Ba, 2015) with rate `lr` from the sum of matrices
    (m, n)."""
    iters, rate = int(numbers[0]), numbers[1]
    out.zero_()
    for x in inputs:
        out.add_(x)
    terms = [(x, size) for x in inputs if (size := _square(x))]
    wide = out.shape[0] <= out.shape[1]
    # (M - δ)(δᵀδ) or ((M - δ)δᵀ)δ, whichever is smaller in the middle
    grams = [] if wide else [x.T @ x for x, _ in terms]
    mean, squares, gradient, away, pulled = (torch.zeros_like(out) for _ in range(5))
    for step in range(1, iters + 1):
        gradient.zero_()
        for k, (x, size) in enumerate(terms):
            torch.sub(out, x, out=away)
            torch.matmul(*((away @ x.T, x) if wide else (away, grams[k])), out=pulled)
            gradient.add_(pulled, alpha=2 / size)
        mean.mul_(DECAY).add_(gradient, alpha=1 - DECAY)
        squares.mul_(DECAY_OF_SQUARES).addcmul_(gradient, gradient, value=1 - DECAY_OF_SQUARES)
        torch.div(squares, 1 - DECAY_OF_SQUARES**step, out=away).sqrt_().add_(EPSILON)
        out.addcdiv_(mean, away, value=-rate / (1 - DECAY**step))


@finite_only
def interference_solve(inputs: Tensors, numbers: Numbers, out: torch.Tensor, attributes: Attributes) -> None:
    """Of matrices (m, n): (Σ δᵢGᵢ)·(Σ Gᵢ)⁺ with Gᵢ = δᵢᵀδᵢ / |δᵢ|², the smallest of the minima; in
    float64."""
    columns = out.shape[1]
    gram = torch.zeros((columns, columns), dtype=torch.float64, device=out.device)
    pulled = torch.zeros(out.shape, dtype=torch.float64, device=out.device)
    for x in inputs:
        wide, size = x.double(), _square(x)
        if size:
            own = (wide.T @ wide).div_(size)
            pulled.addmm_(wide, own)
            gram.add_(own)
    values, vectors = torch.linalg.eigh(gram)
    # eigenvalues are squares of the singular values of all deltas, one above the other
    kept = values > SMALL * SMALL * values[-1]
    vectors = vectors[:, kept]
    out.copy_((pulled @ vectors).div_(values[kept]) @ vectors.T)


def _square(x: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(x, dtype=torch.float64)) ** 2
