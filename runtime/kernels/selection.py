"""Selection of the k largest magnitudes, exactly, by counting bit patterns.

With the sign cleared, floats order as their bit patterns do, NaN above all. A round counts 16 bits of the pattern,
the highest first, among the elements that agree with what earlier rounds fixed: two rounds for float32, four for
float64. Where more elements equal the k-th than are kept, those of lowest index are, so equal ones are counted by
chunk: the last round remembers what it saw in a chunk if that is little, as it is where values are
coarse and equal ones many; failing that, there is one more round.
"""

from __future__ import annotations

import numpy
import torch
from numpy.typing import NDArray

from ...compiler.plan import CHUNK
from .histogram import BINS, DIGIT, LaneHistograms
from .values import Block, Result, Threshold, bits, magnitude_mask

_FEW = 32
"""Different digits of a chunk that are worth remembering: their bytes are next to nothing beside the chunk's."""


class Selection:
    """A `Reducer` for `threshold`: finds the `Threshold` that keeps `k` of `numel` numbers of `dtype`."""

    def __init__(self, k: int, numel: int, dtype: torch.dtype) -> None:
        self._numel, self._magnitude = numel, magnitude_mask(dtype)
        self._words = torch.int32 if dtype == torch.float32 else torch.int64
        self._shift = (32 if dtype == torch.float32 else 64) - DIGIT
        self._prefix = 0
        self._rank = k
        self._histograms = LaneHistograms()
        self._seen: dict[int, dict[int, int] | None] = {}
        self._ties: dict[int, int] | None = None
        self._result: Threshold | None = None
        if k <= 0:
            self._result = Threshold(self._magnitude, 0, 0)
        elif k >= numel:
            self._result = Threshold(0, self._end, 0)

    @property
    def _end(self) -> int:
        """A cut behind all elements."""
        return -(-self._numel // CHUNK) * CHUNK

    @property
    def done(self) -> bool:
        return self._result is not None

    def result(self) -> Result:
        assert self._result is not None
        return self._result

    def feed(self, block: Block, args: tuple[torch.Tensor, ...], state: torch.Tensor | None) -> None:
        if self._result is not None:
            return
        words, cpu = bits(args[0]), args[0].device.type == "cpu"
        if self._ties is not None:
            (self._count_ties_cpu if cpu else self._count_ties)(block, words)
            return
        assert state is not None
        histogram = self._histograms.of(state)
        if not cpu:
            self._count_digits(block, words, histogram)
        elif self._shift + DIGIT == 8 * words.element_size():
            self._count_first_cpu(block, words, histogram)
        else:
            self._count_digits_cpu(block, words, histogram)

    def finish_round(self) -> None:
        if self._result is not None:
            return
        if self._ties is not None:
            self._cut(self._ties)
            return
        counts = self._histograms.take()
        above = counts[::-1].cumsum()
        found = int(numpy.searchsorted(above, self._rank))
        digit = BINS - 1 - found
        self._rank -= int(above[found] - counts[digit])
        self._prefix = self._prefix << DIGIT | digit
        if self._rank == counts[digit]:
            # every element that begins like this is kept, so the rest of the pattern doesn't matter
            self._result = Threshold(self._prefix << self._shift, self._end, 0)
        elif self._shift:
            self._shift -= DIGIT
        else:
            seen = {chunk: digits for chunk, digits in self._seen.items() if digits is not None}
            if seen and len(seen) == len(self._seen):
                self._cut({chunk: digits.get(digit, 0) for chunk, digits in seen.items()})
            else:
                self._ties = {}

    def _cut(self, ties: dict[int, int]) -> None:
        left = self._rank
        for chunk in sorted(ties):
            if left <= ties[chunk]:
                self._result = Threshold(self._prefix, chunk * CHUNK, left)
                return
            left -= ties[chunk]
        raise RuntimeError("a pass gave other numbers when it was repeated")

    def _count_first_cpu(self, block: Block, words: torch.Tensor, histogram: torch.Tensor) -> None:
        """The highest digit, of all elements; the sign is cleared, so it fits the int16 that torch counts quickest."""
        high = block.shared[: 2 * block.count].view(torch.int16)
        digits = high.numpy()
        step = words.element_size() // 2
        numpy.copyto(digits, words.view(torch.int16).numpy()[step - 1 :: step])
        numpy.bitwise_and(digits, 0x7FFF, out=digits)
        counts = histogram.numpy()
        counts[: BINS // 2] += torch.bincount(high, minlength=BINS // 2).numpy()

    def _count_digits_cpu(self, block: Block, words: torch.Tensor, histogram: torch.Tensor) -> None:
        """A lower digit, of the elements that begin with the prefix: few, so they are picked out."""
        counts = histogram.numpy()
        known = self._magnitude & -(1 << (self._shift + DIGIT))
        for chunk, part, scratch, equal in self._chunks(block, words):
            numpy.bitwise_and(part, part.dtype.type(known), out=scratch)
            numpy.equal(scratch, part.dtype.type(self._prefix << (self._shift + DIGIT)), out=equal)
            picked = part[numpy.flatnonzero(equal)]
            if picked.size:
                picked >>= self._shift
                picked &= BINS - 1
                digits, sizes = numpy.unique(picked, return_counts=True)
                counts[digits] += sizes
                if not self._shift:
                    few = digits.size <= _FEW
                    self._seen[chunk] = dict(zip(digits.tolist(), sizes.tolist(), strict=True)) if few else None

    def _count_ties_cpu(self, block: Block, words: torch.Tensor) -> None:
        assert self._ties is not None
        for chunk, part, scratch, equal in self._chunks(block, words):
            numpy.bitwise_and(part, part.dtype.type(self._magnitude), out=scratch)
            numpy.equal(scratch, part.dtype.type(self._prefix), out=equal)
            self._ties[chunk] = int(numpy.count_nonzero(equal))

    def _chunks(
        self, block: Block, words: torch.Tensor
    ) -> list[tuple[int, NDArray[numpy.signedinteger], NDArray[numpy.signedinteger], NDArray[numpy.bool_]]]:
        """(index in the tensor, words, scratch for as many words, scratch for as many booleans) of every chunk."""
        whole, size = words.numpy(), min(CHUNK, block.count)
        width = words.element_size() * size
        scratch = block.shared[:width].view(words.dtype).numpy()
        equal = block.shared[width : width + size].view(torch.bool).numpy()
        chunks = []
        for start in range(0, block.count, CHUNK):
            part = whole[start : start + CHUNK]
            chunks.append(((block.first + start) // CHUNK, part, scratch[: part.size], equal[: part.size]))
        return chunks

    def _count_digits(self, block: Block, words: torch.Tensor, histogram: torch.Tensor) -> None:
        """A digit on an accelerator: every element adds 1 or 0, which spreads better than one bin for the others."""
        scratch = block.shared[: 16 * block.count].view(torch.int64)
        digits, ones = scratch[: block.count], scratch[block.count :]
        digits.copy_(words).bitwise_and_(self._magnitude)
        torch.bitwise_right_shift(digits, self._shift + DIGIT, out=ones) if self._shift < 48 else ones.zero_()
        torch.eq(ones, self._prefix, out=ones)
        digits.bitwise_right_shift_(self._shift).bitwise_and_(BINS - 1)
        histogram.scatter_add_(0, digits, ones)

    def _count_ties(self, block: Block, words: torch.Tensor) -> None:
        assert self._ties is not None
        equal = block.shared[: 8 * block.count].view(torch.int64)
        equal.copy_(words).bitwise_and_(self._magnitude)
        torch.eq(equal, self._prefix, out=equal)
        starts = range(0, block.count, CHUNK)
        counts = torch.stack([equal[start : start + CHUNK].sum() for start in starts]).cpu()
        for start, count in zip(starts, counts, strict=True):
            self._ties[(block.first + start) // CHUNK] = int(count)
