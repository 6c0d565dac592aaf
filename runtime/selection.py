"""Selection of the k largest magnitudes, exactly, by counting bit patterns. Needs no torch.

With the sign cleared, floats order as their bit patterns do, NaN above all. A round counts 16 bits of the pattern,
the highest first, among the elements that agree with what earlier rounds fixed: two rounds for float32, four for
float64. Where more elements equal the k-th than are kept, those of lowest index are, so equal ones are counted by
chunk: the last round remembers what it saw in a chunk if that is little, as it is where values are
coarse and equal ones many; failing that, there is one more round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy
from numpy.typing import NDArray

from ..compiler.plan import CHUNK
from .reductions import Result, Threshold

DIGIT = 16
"""Bits of a pattern that one round looks at."""

BINS = 1 << DIGIT

FEW = 32
"""Different digits of a chunk that are worth remembering: their bytes are next to nothing beside the chunk's."""

Counts = NDArray[numpy.int64]


class LaneHistograms:
    """One histogram a lane, in the memory that the lane lends a reduction; joined at the end of a round."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[int, Callable[[], Counts]] = {}

    def enter(self, lane: int, counts: Callable[[], Counts]) -> bool:
        """Whether the lane is new in this round, so that its memory is to be zeroed; `counts` reads it at the end.

        `lane` is the address of that memory, or anything else that is the lane's own.
        """
        if lane in self._lanes:
            return False
        with self._lock:
            self._lanes[lane] = counts
        return True

    def take(self) -> Counts:
        """The counts of all lanes together; the next round begins at zero."""
        total = numpy.zeros(BINS, numpy.int64)
        for counts in self._lanes.values():
            total += counts()
        self._lanes.clear()
        return total


class Selection:
    """A `Reducer` for `threshold`: finds the `Threshold` that keeps `k` of `numel` numbers of `width` bits.

    A round counts the digit at `shift` of the magnitudes that begin with `prefix`; or, when `counting_ties`, those that
    are `prefix`, by chunk.
    """

    def __init__(self, k: int, numel: int, width: int) -> None:
        self.width = width
        self.shift = width - DIGIT
        self.prefix = 0
        self.histograms = LaneHistograms()
        self._numel, self._rank = numel, k
        self._seen: dict[int, dict[int, int] | None] = {}
        self._ties: dict[int, int] | None = None
        self._result: Threshold | None = None
        if k <= 0:
            self._result = Threshold(self.magnitude, 0, 0)
        elif k >= numel:
            self._result = Threshold(0, self._end, 0)

    @property
    def magnitude(self) -> int:
        """All bits but the sign."""
        return (1 << (self.width - 1)) - 1

    @property
    def counting_ties(self) -> bool:
        return self._ties is not None

    @property
    def done(self) -> bool:
        return self._result is not None

    def result(self) -> Result:
        assert self._result is not None
        return self._result

    def remember(self, chunk: int, digits: dict[int, int] | None) -> None:
        """The last digits of a chunk's elements that begin with the prefix, counted; None where they are many."""
        self._seen[chunk] = digits

    def tie(self, chunk: int, count: int) -> None:
        """How many of a chunk's magnitudes are the one sought."""
        assert self._ties is not None
        self._ties[chunk] = count

    def finish_round(self) -> None:
        if self._result is not None:
            return
        if self._ties is not None:
            self._cut(self._ties)
            return
        counts = self.histograms.take()
        above = counts[::-1].cumsum()
        found = int(numpy.searchsorted(above, self._rank))
        digit = BINS - 1 - found
        self._rank -= int(above[found] - counts[digit])
        self.prefix = self.prefix << DIGIT | digit
        if self._rank == counts[digit]:
            # every element that begins like this is kept, so the rest of the pattern doesn't matter
            self._result = Threshold(self.prefix << self.shift, self._end, 0)
        elif self.shift:
            self.shift -= DIGIT
        else:
            seen = {chunk: digits for chunk, digits in self._seen.items() if digits is not None}
            if seen and len(seen) == len(self._seen):
                self._cut({chunk: digits.get(digit, 0) for chunk, digits in seen.items()})
            else:
                self._ties = {}

    @property
    def _end(self) -> int:
        """A cut behind all elements."""
        return -(-self._numel // CHUNK) * CHUNK

    def _cut(self, ties: dict[int, int]) -> None:
        left = self._rank
        for chunk in sorted(ties):
            if left <= ties[chunk]:
                self._result = Threshold(self.prefix, chunk * CHUNK, left)
                return
            left -= ties[chunk]
        raise RuntimeError("a pass gave other numbers when it was repeated")


class Digits(Selection):
    """A `Reducer` for `digits`: counts the digit at `shift` of the magnitudes that begin with `prefix`."""

    def __init__(self, prefix: int, shift: int, numel: int, width: int) -> None:
        super().__init__(1, max(numel, 2), width)
        self.prefix, self.shift = prefix, shift
        self._counts: dict[int, int] | None = None

    @property
    def done(self) -> bool:
        return self._counts is not None

    def result(self) -> Result:
        assert self._counts is not None
        return self._counts

    def finish_round(self) -> None:
        found = self.histograms.take()
        used = numpy.flatnonzero(found)
        self._counts = dict(zip(used.tolist(), found[used].tolist(), strict=True))
