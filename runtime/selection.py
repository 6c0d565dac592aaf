"""Selection of the k largest magnitudes, exactly, by counting bit patterns. Needs no torch.

With the sign cleared, floats order as their bit patterns do, NaN above all. Where more elements equal the k-th than are
kept, those of lowest index are, so equal ones are counted by chunk: the last round remembers what it saw in a chunk if
that is little, as it is where values are coarse and equal ones many; failing that, there is one more round.

A round over a few blocks may come before all (`sample`). The digit that it finds is a guess: where it is right, the
next digit has been counted along with the first, and a round over everything is spared.
"""

from __future__ import annotations

import numpy

from ..compiler.plan import CHUNK
from .digits import BINS, DIGIT, Counts, DigitRounds, LaneHistograms, place
from .reductions import Threshold

FEW = 32
"""Different digits of a chunk that are worth remembering: their bytes are next to nothing beside the chunk's."""


class Selection(DigitRounds):
    """A `Reducer` for `threshold`: finds the `Threshold` that keeps `k` of `numel` numbers of `width` bits.

    The words are magnitudes. When `counting_ties`, a round counts those that are `prefix`, by chunk. With a `guess` at
    the first digit, the first round counts the next digit of the words that begin with it, too, into `along`.
    """

    def __init__(self, k: int, numel: int, width: int) -> None:
        super().__init__(width)
        self._numel, self._rank = numel, k
        self._seen: dict[int, dict[int, int] | None] = {}
        self._ties: dict[int, int] | None = None
        self.sampling = False
        self.guess: int | None = None
        self.along = LaneHistograms()
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

    def sample(self) -> None:
        """The round that begins looks at a few of the elements, for a guess at the first digit."""
        self.sampling = True

    def finish_round(self) -> None:
        if self._result is not None:
            return
        if self._ties is not None:
            self._cut(self._ties)
            return
        counts = self.histograms.take()
        if self.sampling:
            share = int(counts.sum()) / self._numel
            self.sampling, self.guess = False, _from_the_top(counts, max(1, round(self._rank * share)))[0]
            return
        self._next_digit(counts)
        guess, self.guess = self.guess, None
        if guess is None or self._result is not None:
            return
        if guess == self.prefix:
            self._next_digit(self.along.take())
        else:
            self.along.take()
            self._seen.clear()

    def _next_digit(self, counts: Counts) -> None:
        digit, before = _from_the_top(counts, self._rank)
        self._rank -= before
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


def _from_the_top(counts: Counts, rank: int) -> tuple[int, int]:
    """The digit of the word of that rank, from 1 for the largest, and how many words have a higher one."""
    passed, before = place(counts[::-1], rank)
    return BINS - 1 - passed, before


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
