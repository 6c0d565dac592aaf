"""Selection of the k largest magnitudes, exactly, by counting bit patterns. Needs no torch.

With the sign cleared, floats order as their bit patterns do, NaN above all. Where more elements equal the k-th than are
kept, those of lowest index are, so equal ones are counted by chunk: the last round remembers what it saw in a chunk if
that is little, as it is where values are coarse and equal ones many; failing that, there is one more round.
"""

from __future__ import annotations

import numpy

from ..compiler.plan import CHUNK
from .digits import BINS, DIGIT, DigitRounds
from .reductions import Threshold

FEW = 32
"""Different digits of a chunk that are worth remembering: their bytes are next to nothing beside the chunk's."""


class Selection(DigitRounds):
    """A `Reducer` for `threshold`: finds the `Threshold` that keeps `k` of `numel` numbers of `width` bits.

    The words are magnitudes. When `counting_ties`, a round counts those that are `prefix`, by chunk.
    """

    def __init__(self, k: int, numel: int, width: int) -> None:
        super().__init__(width)
        self._numel, self._rank = numel, k
        self._seen: dict[int, dict[int, int] | None] = {}
        self._ties: dict[int, int] | None = None
        if k <= 0:
            self._result = Threshold(self.magnitude, 0, 0)
        elif k >= numel:
            self._result = Threshold(0, self._end, 0)

    @property
    def counting_ties(self) -> bool:
        return self._ties is not None

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
        # one of several: of which nothing is known before they are counted
        super().__init__(1, max(numel, 2), width)
        self.prefix, self.shift = prefix, shift

    def finish_round(self) -> None:
        found = self.histograms.take()
        used = numpy.flatnonzero(found)
        self._result = dict(zip(used.tolist(), found[used].tolist(), strict=True))
