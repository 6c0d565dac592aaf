"""Selection of the number at a place in ascending order, exactly, by counting bit patterns. Needs
no torch.

A float's bits, those below the sign turned over where the sign is set, order as signed integers
just as the numbers do, -0.0 below 0.0. These words are what is counted. A NaN of any sign is the
largest, as in sorting.
"""

from __future__ import annotations

import struct

from .counting import DIGIT, LaneHistograms, Words, place


class Quantile(Words):
    """A `Reducer` for `kth_smallest`: the number that `k` of `numel` numbers precede, of `width`
    bits, in order.

    A round counts the digit at `shift` of the words that begin with `prefix`.
    """

    def __init__(self, k: int, numel: int, width: int) -> None:
        super().__init__(width)
        self.shift, self.prefix = width - DIGIT, 0
        self.histograms = LaneHistograms()
        self._rank = min(max(k, 0), numel - 1)
        if not numel:
            self._result = 0.0

    def finish_round(self) -> None:
        if self._result is not None:
            return
        digit, before = place(self.histograms.take(), self._rank + 1)
        self._rank -= before
        self.prefix = self.prefix << DIGIT | digit
        if self.shift:
            self.shift -= DIGIT
        else:
            self._result = self._number()

    def begins(self) -> int:
        """What the words sought have above the digit that is counted: the prefix, as counts of them
        begin at 0."""
        fixed = self.width - self.shift - DIGIT
        return self.prefix - (1 << (fixed - 1)) if fixed else 0

    def _number(self) -> float:
        """The number whose word was found."""
        word = self.prefix - (1 << (self.width - 1))
        pattern = word if word >= 0 else word ^ self.magnitude
        layout = ("<i", "<f") if self.width == 32 else ("<q", "<d")
        return float(struct.unpack(layout[1], struct.pack(layout[0], pattern))[0])
