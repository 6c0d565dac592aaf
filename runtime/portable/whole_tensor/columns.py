"""Kernels that look along columns, the first axis of a whole tensor.

Columns are added in strips of a fixed width and rows of a fixed number, in float64, so the order of
additions depends on the shape alone and the workspace is the same for any tensor.
"""

# ruff: noqa: ARG001 - all kernels have one signature

from __future__ import annotations

import numpy
import torch

from ....compiler.plan.plan import CHUNK
from ...reduce.reducer import Attributes


def column_sum(
    inputs: tuple[torch.Tensor, ...], scalars: tuple[float, ...], out: torch.Tensor, attributes: Attributes
) -> None:
    """The sum over the first axis at each element, of one tensor of any shape; one of no axis is
    its own sum."""
    if not out.numel():
        return
    rows = inputs[0].shape[0] if inputs[0].ndim else 1
    x, result = inputs[0].reshape(rows, -1), out.view(rows, -1)
    for first in range(0, x.shape[1], CHUNK):
        strip = x[:, first : first + CHUNK]
        # several threads of torch would each add a part, and their number differs from machine to
        # machine
        sums = _sums_on_host(strip) if x.device.type == "cpu" else strip.sum(dim=0, dtype=torch.float64)
        result[:, first : first + CHUNK].copy_(sums.to(result.dtype).expand(strip.shape))


def mean_rows(
    inputs: tuple[torch.Tensor, ...], scalars: tuple[float, ...], out: torch.Tensor, attributes: Attributes
) -> None:
    """Some rows, along the first axis of one tensor (rows, …), replaced by the mean of the others;
    `rows` of the attributes is `first:end` of each run, by commas.

    With no others they are 0.
    """
    rows = inputs[0].shape[0]
    x, result = inputs[0].reshape(rows, -1), out.view(rows, -1)
    result.copy_(x)
    runs = [
        (int(first), int(end)) for first, _, end in (run.partition(":") for run in str(attributes["rows"]).split(","))
    ]
    others = [(a, b) for a, b in zip([0, *(e for _, e in runs)], [*(f for f, _ in runs), rows], strict=True) if a < b]
    count = max(1, sum(end - first for first, end in others))
    for first in range(0, x.shape[1], CHUNK):
        strip = slice(first, first + CHUNK)
        sums = torch.zeros(result[:1, strip].shape[1], dtype=torch.float64, device=x.device)
        for start, end in others:
            part = x[start:end, strip]
            sums += _sums_on_host(part) if x.device.type == "cpu" else part.sum(dim=0, dtype=torch.float64)
        for start, end in runs:
            result[start:end, strip] = (sums / count).to(result.dtype)


def _sums_on_host(strip: torch.Tensor) -> torch.Tensor:
    width = strip.shape[1]
    step = max(1, CHUNK // width)
    sums = numpy.zeros(width, numpy.float64)
    wide = numpy.empty((step, width), numpy.float64)
    with numpy.errstate(all="ignore"):
        for first in range(0, strip.shape[0], step):
            rows = strip[first : first + step].numpy()
            numpy.copyto(wide[: len(rows)], rows)
            sums += numpy.add.reduce(wide[: len(rows)], axis=0)
    return torch.from_numpy(sums)
