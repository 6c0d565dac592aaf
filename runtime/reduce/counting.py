"""Counting words by their digits, the highest first: how a number is found by its place in an
order. Needs no torch.

A round counts 16 bits of the words, among those that agree with what earlier rounds fixed: two
rounds for 32 bits, four for 64. `quantile.py` does just that, `selection.py` counts windows that
need not begin where digits do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy
from numpy.typing import NDArray

from .reducer import Result

DIGIT = 16
"""Bits of a word that one round looks at."""

BINS = 1 << DIGIT

Counts = NDArray[numpy.int64 | numpy.uint32]
"""How many words have each digit; the narrower ones of fewer than 2^32 words, and perhaps without
those digits that no word can have."""


_GROUP = 256


def place(counts: Counts, rank: int) -> tuple[int, int]:
    """The digit of the word of that rank, from 1 for the lowest, and how many words have a lower
    one.

    Raises RuntimeError where there are fewer words.
    """
    # first among groups of digits: to add up all of them one by one takes as long as counting a
    # small tensor
    groups = counts.reshape(-1, _GROUP)
    below = groups.sum(axis=1, dtype=counts.dtype).cumsum()
    group = int(numpy.searchsorted(below, rank))
    if rank < 1 or group == len(groups):
        raise RuntimeError("a pass gave other numbers when it was repeated")
    before = int(below[group] - groups[group].sum())
    within = groups[group].cumsum()
    digit = int(numpy.searchsorted(within, rank - before))
    return group * _GROUP + digit, before + int(within[digit] - groups[group][digit])


def place_from_the_top(counts: Counts, rank: int) -> tuple[int, int]:
    """The digit of the word of that rank, from 1 for the highest, and how many words have a higher
    one.

    Raises RuntimeError where there are fewer words.
    """
    # not `place` backwards, which takes five times as long
    total = int(counts.sum(dtype=counts.dtype))
    digit, lower = place(counts, total + 1 - rank)
    return digit, total - lower - int(counts[digit])


class LaneHistograms:
    """One histogram per lane, in the memory that the lane lends a reduction; joined at the end of a
    round."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[int, Callable[[], Counts]] = {}

    def enter(self, lane: int, counts: Callable[[], Counts]) -> bool:
        """Whether the lane is new in this round, so that its memory is to be zeroed; `counts` reads
        it at the end.

        `lane` is the address of that memory, or anything else that is the lane's own.
        """
        if lane in self._lanes:
            return False
        with self._lock:
            self._lanes[lane] = counts
        return True

    def take(self) -> Counts:
        """The counts of all lanes together; the next round begins at zero, and a lane's memory may
        then change."""
        lanes = [counts() for counts in self._lanes.values()]
        self._lanes.clear()
        # a lane alone is the rule with small tensors, and there a copy would show
        return sum(lanes[1:], lanes[0]) if lanes else numpy.zeros(BINS, numpy.int64)


class Words:
    """What `Reducer`s have in common that count words of `width` bits until they have their
    result."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._result: Result | None = None

    @property
    def magnitude(self) -> int:
        """All bits but the sign."""
        return (1 << (self.width - 1)) - 1

    @property
    def done(self) -> bool:
        return self._result is not None

    def result(self) -> Result:
        assert self._result is not None
        return self._result
