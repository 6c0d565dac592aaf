"""Selection of the k largest magnitudes, exactly, by counting bit patterns. Needs no torch.

With the sign cleared, floats order as their bit patterns do, NaN above all. A round counts those of
a window into 65,536 bins (`windows.py`); the bin that holds the k-th is the next round's window,
until a bin is one pattern. The first window is everything there is, so that two rounds find a
float32.

Where more elements equal the k-th than are kept, those of lowest index are, so equal ones are
counted by chunk: a round whose bins are single patterns remembers what it saw in a chunk if that is
little, as it is where values are coarse and equal ones many; failing that, there is one more round.

A round over a few blocks may come before all (`sample`). It shows roughly where the k-th is, and
the next round counts a window that holds it, barring bad luck, and a narrow one of single patterns
in its midst: where that has it, as is the rule, one round over everything was enough. A bad guess
costs rounds, never exactness.
"""

from __future__ import annotations

import math

import numpy

from ...compiler.plan.plan import CHUNK
from .counting import DIGIT, Counts, Words, place_from_the_top
from .reducer import Threshold
from .windows import Counting, Window, everything

FEW = 32
"""Different patterns of a chunk that are worth remembering: their bytes are next to nothing
compared to the chunk's."""

SURE = 4.0
"""Half the width in ranks, over the square root of the sample's size, of a window that should hold
the k-th: eight standard deviations of a median, were the sample drawn element by element. It is
drawn in parts, whose elements resemble each other, and that takes some of them."""


def settled(k: int, numel: int, width: int) -> Threshold | None:
    """The threshold that keeps none or all of `numel` numbers; None where it takes a look at them
    to find it."""
    if k <= 0:
        return Threshold((1 << (width - 1)) - 1, 0, 0)
    return Threshold(0, _end(numel), 0) if k >= numel else None


def _end(numel: int) -> int:
    """A cut behind all elements."""
    return -(-numel // CHUNK) * CHUNK


class Magnitudes(Words):
    """What the `Reducer`s have in common that count magnitudes. `counting` has a round's windows,
    the widest first."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.counting = self._everything()

    def _everything(self) -> tuple[Counting, ...]:
        return (Counting(everything(self.width), above=0),)


class Digits(Magnitudes):
    """A `Reducer` for `digits`: counts the digit at `shift` of the magnitudes that begin with
    `prefix`."""

    def __init__(self, prefix: int, shift: int, width: int) -> None:
        super().__init__(width)
        self.counting = (Counting(Window(prefix << (shift + DIGIT), shift), above=0),)

    def finish_round(self) -> None:
        found = self.counting[0].counts()
        used = numpy.flatnonzero(found)
        self._result = dict(zip(used.tolist(), found[used].tolist(), strict=True))


class RankSelection(Magnitudes):
    """A `Reducer` for `threshold`: finds the `Threshold` that keeps `k` of `numel` numbers of
    `width` bits.

    When `counting_ties`, a round counts those magnitudes that are `pattern`, by chunk.
    """

    def __init__(self, k: int, numel: int, width: int) -> None:
        super().__init__(width)
        self.pattern = 0
        self._numel, self._rank = numel, k
        self._ties: dict[int, int] | None = None
        self._sampling = self._guessed = False
        self._result = settled(k, numel, width)

    @property
    def counting_ties(self) -> bool:
        return self._ties is not None

    def tie(self, chunk: int, count: int) -> None:
        """How many of a chunk's magnitudes are the one sought."""
        assert self._ties is not None
        self._ties[chunk] = count

    def sample(self) -> None:
        """The round that begins looks at a few of the elements, for a guess at where the k-th
        is."""
        self._sampling = True

    def finish_round(self) -> None:
        if self._result is not None:
            return
        if self._ties is not None:
            self._cut(self._ties)
        elif self._sampling:
            self._sampling = False
            self.counting = self._around(self.counting[0].counts())
        else:
            self._narrow()

    def _around(self, counts: Counts) -> tuple[Counting, ...]:
        """The windows that the counts of a sample suggest."""
        total = int(counts.sum())
        if not total:
            return self.counting
        rank, spread = self._rank / self._numel * total, SURE * math.sqrt(total)
        lowest = place_from_the_top(counts, min(total, math.ceil(rank + spread)))[0]
        highest = place_from_the_top(counts, max(1, math.floor(rank - spread)))[0]
        shift = self.width - DIGIT
        wide = Window(lowest << shift, shift - DIGIT + (highest - lowest).bit_length())
        self._guessed = True
        if lowest == highest:
            return (Counting(wide, above=None),)
        rank = min(total, max(1, round(rank)))
        bin_, before = place_from_the_top(counts, rank)
        middle = (bin_ + 1 << shift) - int((rank - before) / int(counts[bin_]) * (1 << shift))
        first = min(max(0, middle - (1 << shift - 1)), self.magnitude + 1 - (1 << shift))
        return (Counting(wide, above=None), Counting(Window(first, shift - DIGIT), above=None))

    def _narrow(self) -> None:
        """Looks for the k-th in what was counted, in the narrowest window first."""
        guessed, self._guessed = self._guessed, False
        for counting in reversed(self.counting):
            above, counts = counting.above, counting.counts()
            if above < self._rank <= above + int(counts.sum()):
                self._in(counting, counts)
                return
        if not guessed:
            raise RuntimeError("a pass gave other numbers when it was repeated")
        self.counting = self._everything()

    def _in(self, counting: Counting, counts: Counts) -> None:
        window = counting.window
        bin_, before = place_from_the_top(counts, self._rank - counting.above)
        above = counting.above + before
        self.pattern = window.first + (bin_ << window.shift)
        if self._rank - above == counts[bin_]:
            # all in the bin are kept, so the rest of the pattern doesn't matter
            self._result = Threshold(self.pattern, _end(self._numel), 0)
        elif window.shift >= DIGIT:
            self.counting = (Counting(Window(self.pattern, window.shift - DIGIT), above=above),)
        elif window.shift:
            # reaches beyond the bin, and what is above it has not been counted
            self.counting = (Counting(Window(self.pattern, 0), above=None),)
        else:
            self._rank -= above
            if (seen := counting.seen_of(bin_)) is not None:
                self._cut(seen)
            else:
                self._ties = {}

    def _cut(self, ties: dict[int, int]) -> None:
        left = self._rank
        for chunk in sorted(ties):
            if left <= ties[chunk]:
                self._result = Threshold(self.pattern, chunk * CHUNK, left)
                return
            left -= ties[chunk]
        raise RuntimeError("a pass gave other numbers when it was repeated")
