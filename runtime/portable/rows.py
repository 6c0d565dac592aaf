"""Kernels that look along rows: a row's result stands at each of its elements. Blocks hold whole
rows.

The sum of a row is float64, in an order that depends on the row's length alone (`summation.py`).
"""

# ruff: noqa: ARG001 - all kernels have one signature

from __future__ import annotations

import torch

from ...compiler.plan.plan import CHUNK
from ..reduce.reducer import Attributes
from ..stream.summation import lane_sums
from .values import BlockValue, Value, tensor


def _rows(x: torch.Tensor, row: int) -> torch.Tensor:
    return x.view(-1, row)


def row_sum(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """The sum of each row of `row` elements, rounded from float64."""
    x, result = _rows(tensor(args[0]), int(attributes["row"])), _rows(out, int(attributes["row"]))
    wide = block.shared[: x.numel() * 8].view(torch.float64).view(x.shape)
    wide.copy_(x)
    sums = torch.from_numpy(lane_sums(wide.numpy())) if x.device.type == "cpu" else wide.sum(dim=1)
    result.copy_(sums.unsqueeze(1).expand(x.shape))


def row_max(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """The largest of each row of `row` elements; NaN where one is, and of zeros the one without a
    sign."""
    x, result = _rows(tensor(args[0]), int(attributes["row"])), _rows(out, int(attributes["row"]))
    # of 0.0 and -0.0 either may be found: the result is 0.0
    result.copy_(x.amax(dim=1, keepdim=True).add_(0.0).expand(x.shape))


def row_rank(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """Ascending rank in a row of `row` elements from 0 to 1, of equals the first lower; a single
    column ranks 0.5."""
    row = int(attributes["row"])
    x, result = _rows(tensor(args[0]), row), _rows(out, row)
    if row == 1:
        result.fill_(0.5)
        return
    ranks = torch.arange(row, dtype=out.dtype, device=out.device).div_(row - 1)
    step = max(1, CHUNK // row)  # sorting makes temporaries: a few rows at a time
    for first in range(0, x.shape[0], step):
        part = slice(first, first + step)
        order = torch.argsort(x[part], dim=1, stable=True)
        result[part].scatter_(1, order, ranks.expand(order.shape))
