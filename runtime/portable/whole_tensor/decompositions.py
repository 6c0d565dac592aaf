"""What the kernels on whole matrices share: decompositions that cannot fail on finite input."""

from __future__ import annotations

import functools

import torch

from ...reduce.reducer import Attributes
from .kernel import WholeTensorKernel

SMALL = 1e-6
"""Singular values up to this share of the largest count as 0 where a division by them would blow up
rounding."""


def svd(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U (m x r), descending singular values (r), V transposed (r x n), r = min(m, n), in the dtype
    of x."""
    try:
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        # divide and conquer fails to converge now and then in float32
        u, s, vh = (part.to(x.dtype) for part in torch.linalg.svd(x.double(), full_matrices=False))
    return u, s, vh


def polar(x: torch.Tensor) -> torch.Tensor:
    """The orthogonal factor PQᵀ of x = PΣQᵀ; directions of no weight are dropped instead of made
    up."""
    u, s, vh = svd(x)
    rank = int((s > SMALL * s[:1]).sum())
    return u[:, :rank] @ vh[:rank]


def finite_only(kernel: WholeTensorKernel) -> WholeTensorKernel:
    """The kernel where every input is finite; NaN everywhere else, since every element depends on
    all others.

    Of no elements nothing is computed.
    """

    @functools.wraps(kernel)
    def guarded(
        inputs: tuple[torch.Tensor, ...], numbers: tuple[float, ...], out: torch.Tensor, attributes: Attributes
    ) -> None:
        if not all(_is_finite(x) for x in inputs):
            out.fill_(torch.nan)
        elif out.numel():
            kernel(inputs, numbers, out, attributes)

    return guarded


def _is_finite(x: torch.Tensor) -> bool:
    """Whether all elements are finite, without a tensor's worth of memory."""
    return not x.numel() or (bool(torch.isfinite(x.amin())) and bool(torch.isfinite(x.amax())))
