"""What a pass gathers over all its blocks, the same whatever the blocks and lanes. Needs no torch.

A `Reducer` takes what kernels found in blocks, from any lane in any order, and says when a round is
over whether it needs another. The backends decide how it is fed: `portable/reduce.py`, `native/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ...grammar.records import dataclass

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Threshold:
    """What keeps exactly k elements by magnitude.

    `bits` is the k-th largest |x| as a bit pattern (the sign cleared). Kept are elements above it
    and, of those that equal it, all with flat index below `cut` (a multiple of CHUNK) and the first
    `extra` from `cut` on.
    """

    bits: int
    cut: int
    extra: int


Result = float | Threshold | dict[int, int]
"""What a reduction gives: a number, a threshold, or counts by digit."""


class Reducer(Protocol):
    """One reduction in one pass: fed in every block of a round, from several threads at once; then
    `finish_round`, until `done`."""

    @property
    def done(self) -> bool:
        """Whether no further round is needed."""
        ...

    def finish_round(self) -> None: ...

    def result(self) -> Result: ...


class Partials:
    """One round that keeps some numbers for every block, those of its chunks or one, and joins them
    in order."""

    def __init__(self, join: Callable[[list[float]], float]) -> None:
        self._join = join
        self._kept: dict[int, list[float]] = {}
        self._ended = False

    @property
    def done(self) -> bool:
        return self._ended

    def keep(self, first: int, partials: list[float]) -> None:
        """The numbers of the block that begins with element `first`."""
        self._kept[first] = partials

    def finish_round(self) -> None:
        self._ended = True

    def result(self) -> float:
        return self._join([partial for first in sorted(self._kept) for partial in self._kept[first]])


def _exact_sum(partials: list[float]) -> float:
    if all(map(math.isfinite, partials)):
        try:
            return math.fsum(partials)
        except OverflowError:
            pass
    return sum(partials)


def _largest(partials: list[float]) -> float:
    return math.nan if any(map(math.isnan, partials)) else max(partials, default=-math.inf)


def _smallest(partials: list[float]) -> float:
    return math.nan if any(map(math.isnan, partials)) else min(partials, default=math.inf)


JOINS: Mapping[str, Callable[[list[float]], float]] = {
    "sum": _exact_sum,
    "count": _exact_sum,
    "largest": _largest,
    "smallest": _smallest,
}
"""How the partial results of a block or chunk become one, by accumulator: sums are exactly rounded.

Of no elements the maximum is -inf, the minimum inf; a NaN makes both NaN.
"""


def rank_of(attributes: Attributes, numel: int) -> int:
    """The `k` of a threshold; where it was computed from the weights it may be anything."""
    k = attributes["k"]
    return 0 if math.isnan(k) else int(min(max(k, 0), numel))
