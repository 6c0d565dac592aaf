"""Selection of the number at a place in ascending order, exactly, by counting bit patterns.

A float's bits, those below the sign turned over where the sign is set, order as signed integers just as the numbers do,
-0.0 below 0.0. A round counts 16 bits of these words, the highest first, among the elements that agree with what
earlier rounds fixed: two rounds for float32, four for float64. A NaN of any sign is the largest, as in sorting.
"""

from __future__ import annotations

import struct

import numpy
import torch

from ...compiler.plan import CHUNK
from .histogram import BINS, DIGIT, LaneHistograms
from .values import Block, Threshold, bits, magnitude_mask


class Quantile:
    """A `Reducer` for `kth_smallest`: the number that `k` of `numel` numbers of `dtype` precede in ascending order."""

    def __init__(self, k: int, numel: int, dtype: torch.dtype) -> None:
        self._dtype, self._magnitude = dtype, magnitude_mask(dtype)
        self._width = 32 if dtype == torch.float32 else 64
        self._shift = self._width - DIGIT
        self._prefix = 0
        self._rank = min(max(k, 0), numel - 1)
        self._histograms = LaneHistograms()
        self._result: float | None = None if numel else 0.0

    @property
    def done(self) -> bool:
        return self._result is not None

    def result(self) -> float | Threshold:
        assert self._result is not None
        return self._result

    def feed(self, block: Block, args: tuple[torch.Tensor, ...], state: torch.Tensor | None) -> None:
        if self._result is None:
            assert state is not None
            count = self._count_cpu if args[0].device.type == "cpu" else self._count
            count(block, args[0], self._histograms.of(state))

    def finish_round(self) -> None:
        if self._result is not None:
            return
        counts = self._histograms.take()
        below = counts.cumsum()
        digit = int(numpy.searchsorted(below, self._rank, side="right"))
        if digit == BINS:
            raise RuntimeError("a pass gave other numbers when it was repeated")
        self._rank -= int(below[digit] - counts[digit])
        self._prefix = self._prefix << DIGIT | digit
        if self._shift:
            self._shift -= DIGIT
        else:
            self._result = self._number()

    def _begins(self) -> int:
        """What the words sought have above the digit that is counted: the prefix, as counts of them begin at 0."""
        fixed = self._width - self._shift - DIGIT
        return self._prefix - (1 << (fixed - 1)) if fixed else 0

    def _number(self) -> float:
        """The number whose word was found."""
        word = self._prefix - (1 << (self._width - 1))
        pattern = word if word >= 0 else word ^ self._magnitude
        layout = ("<i", "<f") if self._width == 32 else ("<q", "<d")
        return float(struct.unpack(layout[1], struct.pack(layout[0], pattern))[0])

    def _count_cpu(self, block: Block, x: torch.Tensor, histogram: torch.Tensor) -> None:
        numbers, patterns, counts = x.numpy(), bits(x).numpy(), histogram.numpy()
        size = min(CHUNK, block.count)
        wide = block.shared[: 8 * size].view(torch.int64).numpy()
        words = block.shared[8 * size : (8 + patterns.itemsize) * size].view(bits(x).dtype).numpy()
        flags = block.shared[16 * size : 17 * size].view(torch.bool).numpy()
        for start in range(0, block.count, CHUNK):
            pattern = patterns[start : start + CHUNK]
            word, flag, digits = words[: pattern.size], flags[: pattern.size], wide[: pattern.size]
            numpy.right_shift(pattern, self._width - 1, out=word)
            numpy.bitwise_and(word, word.dtype.type(self._magnitude), out=word)
            numpy.bitwise_xor(word, pattern, out=word)
            numpy.isnan(numbers[start : start + CHUNK], out=flag)
            if flag.any():
                word[flag] = self._magnitude
            if self._shift + DIGIT == self._width:
                numpy.right_shift(word, self._shift, out=word)
                numpy.add(word, BINS // 2, out=digits)
                counts += numpy.bincount(digits, minlength=BINS)
                continue
            # later digits are counted of few elements, so these are picked out
            numpy.right_shift(word, self._shift + DIGIT, out=digits)
            numpy.equal(digits, self._begins(), out=flag)
            picked = word[flag]
            if picked.size:
                found, sizes = numpy.unique(picked >> self._shift & BINS - 1, return_counts=True)
                counts[found] += sizes

    def _count(self, block: Block, x: torch.Tensor, histogram: torch.Tensor) -> None:
        """On an accelerator every element adds 1 or 0, which spreads better than one bin for all others."""
        n = block.count
        scratch = block.shared[: 16 * n].view(torch.int64)
        words, ones = scratch[:n], scratch[n:]
        flags = block.shared[16 * n : 17 * n].view(torch.bool)
        words.copy_(bits(x))
        torch.bitwise_right_shift(words, 63, out=ones)
        words.bitwise_xor_(ones.bitwise_and_(self._magnitude))
        words.masked_fill_(torch.ne(x, x, out=flags), self._magnitude)
        if self._shift + DIGIT == self._width:
            ones.fill_(1)
            words.bitwise_right_shift_(self._shift).add_(BINS // 2)
        else:
            torch.bitwise_right_shift(words, self._shift + DIGIT, out=ones)
            torch.eq(ones, self._begins(), out=ones)
            words.bitwise_right_shift_(self._shift).bitwise_and_(BINS - 1)
        histogram.scatter_add_(0, words, ones)
