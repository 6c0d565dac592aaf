"""Selection of the number at a place in ascending order, exactly, by counting bit patterns. Needs no torch.

A float's bits, those below the sign turned over where the sign is set, order as signed integers just as the numbers do,
-0.0 below 0.0. A round counts 16 bits of these words, the highest first, among the elements that agree with what
earlier rounds fixed: two rounds for float32, four for float64. A NaN of any sign is the largest, as in sorting.
"""

from __future__ import annotations

import struct

import numpy

from .selection import BINS, DIGIT, LaneHistograms


class Quantile:
    """A `Reducer` for `kth_smallest`: the number that `k` of `numel` numbers precede, of `width` bits, in order."""

    def __init__(self, k: int, numel: int, width: int) -> None:
        self.width = width
        self.shift = width - DIGIT
        self.histograms = LaneHistograms()
        self._prefix = 0
        self._rank = min(max(k, 0), numel - 1)
        self._result: float | None = None if numel else 0.0

    @property
    def magnitude(self) -> int:
        """All bits but the sign."""
        return (1 << (self.width - 1)) - 1

    @property
    def done(self) -> bool:
        return self._result is not None

    def result(self) -> float:
        assert self._result is not None
        return self._result

    def finish_round(self) -> None:
        if self._result is not None:
            return
        counts = self.histograms.take()
        below = counts.cumsum()
        digit = int(numpy.searchsorted(below, self._rank, side="right"))
        if digit == BINS:
            raise RuntimeError("a pass gave other numbers when it was repeated")
        self._rank -= int(below[digit] - counts[digit])
        self._prefix = self._prefix << DIGIT | digit
        if self.shift:
            self.shift -= DIGIT
        else:
            self._result = self._number()

    def begins(self) -> int:
        """What the words sought have above the digit that is counted: the prefix, as counts of them begin at 0."""
        fixed = self.width - self.shift - DIGIT
        return self._prefix - (1 << (fixed - 1)) if fixed else 0

    def _number(self) -> float:
        """The number whose word was found."""
        word = self._prefix - (1 << (self.width - 1))
        pattern = word if word >= 0 else word ^ self.magnitude
        layout = ("<i", "<f") if self.width == 32 else ("<q", "<d")
        return float(struct.unpack(layout[1], struct.pack(layout[0], pattern))[0])
