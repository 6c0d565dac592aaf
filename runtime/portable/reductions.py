"""Reductions of a block: what feeds a pass's reducers.

Numbers are summed in float64 by chunk, in an order of its own that numpy's kernels and the compiled ones keep
(`summation.py`); the chunks' sums are exactly rounded at the end. Selections are
fed in `feed_selection.py` and `feed_quantile.py`.
"""

# ruff: noqa: ARG001 - all kernels have one signature

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy
import torch

from ...compiler.plan.plan import CHUNK
from ..reduce.reducer import Partials
from ..stream.summation import lane_sums
from .feed_quantile import feed_quantile
from .feed_selection import feed_selection
from .values import Block

Feed = Callable[[Any, Block, tuple[torch.Tensor, ...], torch.Tensor | None], None]
"""Feeds a reducer one block: its args, and the bytes of state that the lane keeps for the reduction."""


def _chunk_sums(block: Block, args: tuple[torch.Tensor, ...]) -> list[float]:
    """The float64 sum of the args' product over every chunk."""
    if args[0].device.type != "cpu":
        return _chunk_sums_device(block, args)
    size = min(CHUNK, block.count)
    words = block.shared[: 8 * size * len(args)].numpy().view(numpy.float64)
    wide, second = words[:size], words[size:]
    sums = []
    with numpy.errstate(all="ignore"):
        for start in range(0, block.count, CHUNK):
            count = min(CHUNK, block.count - start)
            part = wide[:count]
            numpy.copyto(part, args[0][start : start + count].numpy())
            if len(args) > 1:
                numpy.copyto(second[:count], args[1][start : start + count].numpy())
                numpy.multiply(part, second[:count], out=part)
            sums.append(float(lane_sums(part[None])[0]))
    return sums


def _chunk_sums_device(block: Block, args: tuple[torch.Tensor, ...]) -> list[float]:
    """Halves are added to halves: an order that doesn't depend on how many chunks a block has."""
    words = block.shared[: 8 * block.count * len(args)].view(torch.float64)
    wide = words[: block.count]
    wide.copy_(args[0])
    if len(args) > 1:
        wide.mul_(words[block.count :].copy_(args[1]))
    whole = block.count // CHUNK
    sums = []
    for rows in (wide[: whole * CHUNK].view(whole, CHUNK), wide[whole * CHUNK :].view(1, -1)):
        width = rows.shape[1]
        if not rows.numel():
            continue
        while width > 1:
            half = (width + 1) // 2
            rows[:, : width - half].add_(rows[:, half:width])
            width = half
        sums.append(rows[:, 0])
    return [float(s) for s in torch.cat(sums).cpu()]


def _count(block: Block, args: tuple[torch.Tensor, ...]) -> list[float]:
    mask = args[0]
    return [float(numpy.count_nonzero(mask.numpy()) if mask.device.type == "cpu" else torch.count_nonzero(mask).item())]


def _maximum(block: Block, args: tuple[torch.Tensor, ...]) -> list[float]:
    return [float(torch.amax(args[0])) + 0.0]  # 0 where it is -0: which of them came first is not the same everywhere


def _minimum(block: Block, args: tuple[torch.Tensor, ...]) -> list[float]:
    return [float(torch.amin(args[0])) + 0.0]


def _partial(partials: Callable[[Block, tuple[torch.Tensor, ...]], list[float]]) -> Feed:
    def feed(reducer: Partials, block: Block, args: tuple[torch.Tensor, ...], state: torch.Tensor | None) -> None:
        reducer.keep(block.first, partials(block, args))

    return feed


FEEDS: Mapping[str, Feed] = MappingProxyType(
    {
        "sum": _partial(_chunk_sums),
        "dot": _partial(_chunk_sums),
        "count": _partial(_count),
        "maximum": _partial(_maximum),
        "minimum": _partial(_minimum),
        "threshold": feed_selection,
        "threshold_at": feed_selection,
        "kth_smallest": feed_quantile,
        "digits": feed_selection,
    }
)
"""How the reducer of every reduction is fed; `REDUCERS` has the reducers."""
