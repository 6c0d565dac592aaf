"""Reductions: what a pass gathers over all its blocks, the same whatever the blocks and lanes.

A `Reducer` is fed blocks by any lane in any order. Numbers are summed in float64 by chunk, the chunks' sums
exactly rounded at the end. `threshold` is in `selection.py`, `kth_smallest` in `quantile.py`.
"""

# ruff: noqa: ARG001, ARG002, ARG005 - all reductions have one signature

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import numpy
import torch

from ...compiler.plan import CHUNK
from .digits import Digits
from .quantile import Quantile
from .selection import Selection
from .values import Attributes, Block, Result


class Reducer(Protocol):
    """One reduction in one pass.

    `feed` is called for every block of a round, from several threads at once, with the bytes of state
    that the lane keeps for this reduction; then `finish_round`, until `done`.
    """

    @property
    def done(self) -> bool:
        """Whether no further round is needed."""
        ...

    def feed(self, block: Block, args: tuple[torch.Tensor, ...], state: torch.Tensor | None) -> None: ...

    def finish_round(self) -> None: ...

    def result(self) -> Result: ...


class _Partials:
    """One round that keeps a float for every chunk or block and joins them in order."""

    def __init__(
        self,
        partials: Callable[[Block, tuple[torch.Tensor, ...]], list[float]],
        join: Callable[[list[float]], float],
    ) -> None:
        self._partials, self._join = partials, join
        self._kept: dict[int, list[float]] = {}
        self._ended = False

    @property
    def done(self) -> bool:
        return self._ended

    def feed(self, block: Block, args: tuple[torch.Tensor, ...], state: torch.Tensor | None) -> None:
        self._kept[block.first] = self._partials(block, args)

    def finish_round(self) -> None:
        self._ended = True

    def result(self) -> float:
        return self._join([partial for first in sorted(self._kept) for partial in self._kept[first]])


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
            # numpy adds pairwise in a fixed order, on one thread
            sums.append(float(numpy.add.reduce(part)))
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


def _exact_sum(partials: list[float]) -> float:
    if all(map(math.isfinite, partials)):
        try:
            return math.fsum(partials)
        except OverflowError:
            pass
    return sum(partials)


def _count(block: Block, args: tuple[torch.Tensor, ...]) -> list[float]:
    mask = args[0]
    return [float(numpy.count_nonzero(mask.numpy()) if mask.device.type == "cpu" else torch.count_nonzero(mask).item())]


def _maximum(block: Block, args: tuple[torch.Tensor, ...]) -> list[float]:
    return [float(torch.amax(args[0]))]


def _minimum(block: Block, args: tuple[torch.Tensor, ...]) -> list[float]:
    return [float(torch.amin(args[0]))]


def _largest(partials: list[float]) -> float:
    return math.nan if any(map(math.isnan, partials)) else max(partials, default=-math.inf)


def _smallest(partials: list[float]) -> float:
    return math.nan if any(map(math.isnan, partials)) else min(partials, default=math.inf)


def _threshold(attributes: Attributes, numel: int, dtype: torch.dtype) -> Reducer:
    return Selection(int(attributes["k"]), numel, dtype)


def _threshold_at(attributes: Attributes, numel: int, dtype: torch.dtype) -> Reducer:
    """`k` is a number that came of the weights, so it may be anything."""
    k = attributes["k"]
    return Selection(0 if math.isnan(k) else int(min(max(k, 0), numel)), numel, dtype)


def _digits(attributes: Attributes, numel: int, dtype: torch.dtype) -> Reducer:
    return Digits(int(attributes["prefix"]), int(attributes["shift"]), numel, dtype)


def _kth_smallest(attributes: Attributes, numel: int, dtype: torch.dtype) -> Reducer:
    return Quantile(int(attributes["k"]), numel, dtype)


def _of(
    partials: Callable[[Block, tuple[torch.Tensor, ...]], list[float]], join: Callable[[list[float]], float]
) -> Callable[[Attributes, int, torch.dtype], Reducer]:
    return lambda attributes, numel, dtype: _Partials(partials, join)


REDUCTIONS: Mapping[str, Callable[[Attributes, int, torch.dtype], Reducer]] = MappingProxyType(
    {
        "sum": _of(_chunk_sums, _exact_sum),
        "dot": _of(_chunk_sums, _exact_sum),
        "count": _of(_count, _exact_sum),
        "maximum": _of(_maximum, _largest),
        "minimum": _of(_minimum, _smallest),
        "threshold": _threshold,
        "threshold_at": _threshold_at,
        "kth_smallest": _kth_smallest,
        "digits": _digits,
    }
)
"""For every reduction: from attributes, elements in the tensor and compute dtype, a reducer for one pass.

Of no elements the maximum is -inf, the minimum inf, the k-th smallest 0. A NaN makes the first two NaN and is the
largest to the third.
"""
