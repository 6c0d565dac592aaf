"""Kernels on the spectrum of whole tensors."""

# ruff: noqa: ARG001 - all kernels have one signature

from __future__ import annotations

import math

import torch

from ...reduce.reducer import Attributes
from .decompositions import finite_only


@finite_only
def spectral_blend(
    inputs: tuple[torch.Tensor, ...], numbers: tuple[float, ...], out: torch.Tensor, attributes: Attributes
) -> None:
    """b at frequencies that the filter lets through, a at the others; over all axes of two tensors
    of one shape.

    The numbers are `alpha` and `tilt`.
    """
    alpha, tilt = numbers
    shape = tuple(out.shape) or (1,)
    a, b = (torch.fft.rfftn(x.view(shape)) for x in inputs)
    share = _filter(shape, alpha, tilt, out.device).to(out.dtype)
    blended = b.sub_(a).mul_(share).add_(a)
    out.copy_(torch.fft.irfftn(blended, s=shape).view(out.shape))


def _filter(shape: tuple[int, ...], alpha: float, tilt: float, device: torch.device) -> torch.Tensor:
    """The share of b at each frequency: a step at 1 - alpha, or a ramp through that point."""
    mesh = _frequencies(shape, device)
    if tilt <= 0:
        return mesh > 1 - alpha
    slope = 1 / math.tan(math.pi * tilt / 2)
    return mesh.mul_(slope).add_(slope * alpha + alpha - slope).clamp_(0, 1)


def _frequencies(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """The root mean square over the axes of the frequency as a share of the axis's highest; half of
    the last axis."""
    sizes = (*shape[:-1], shape[-1] // 2 + 1)
    total = torch.zeros(sizes, dtype=torch.float64, device=device)
    for axis, size in enumerate(shape):
        k = torch.arange(sizes[axis], dtype=torch.float64, device=device)
        share = torch.minimum(k, size - k) / max(1, size // 2)
        total += (share * share).view([-1 if i == axis else 1 for i in range(len(shape))])
    return total.div_(len(shape)).sqrt_()
