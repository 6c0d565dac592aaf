"""Which bytes of which files make up a stretch of an operand."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from itertools import accumulate

from ...compiler.checkpoint.dtypes import SIZES
from ...compiler.plan.plan import Gather, Stream
from ...grammar.records import dataclass


@dataclass(frozen=True, slots=True)
class RangePart:
    """Elements `[first, first + count)` of a block: the mean over terms (source, element), zeros
    without any."""

    first: int
    count: int
    terms: tuple[tuple[int, int], ...]


def file_ranges(stream: Stream, first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """(file, start, nbytes) of elements `[first, first + count)`, in order. Raises ValueError past
    the end."""
    size = SIZES[stream.dtype]
    skip, left = first * size, count * size
    for extent in stream.extents:
        if left and skip < extent.nbytes:
            nbytes = min(left, extent.nbytes - skip)
            yield extent.file, extent.start + skip, nbytes
            left -= nbytes
            skip = 0
        else:
            skip -= min(skip, extent.nbytes)
    if left:
        raise ValueError("a stream is shorter than what is read of it")


class GatherParts:
    """Finds the parts of a gather, which may have as many runs as a vocabulary has rows; `means`:
    of several rows."""

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self._ends = list(accumulate(run.rows * gather.width for run in gather.runs))
        self.means = any(len(run.terms) > 1 for run in gather.runs)

    def of(self, first: int, count: int) -> Iterator[RangePart]:
        """The parts of elements `[first, first + count)`, in order; within a part every term is
        contiguous.

        Raises ValueError past the end.
        """
        width, end = self._gather.width, first + count
        k, low = bisect.bisect_right(self._ends, first), first
        while low < end:
            if k == len(self._ends):
                raise ValueError("a gather's runs are fewer than its rows")
            run, stop = self._gather.runs[k], self._ends[k]
            begin, high = stop - run.rows * width, min(stop, end)
            if low < high:
                yield RangePart(low - first, high - low, tuple((s, row * width + low - begin) for s, row in run.terms))
            low, k = high, k + 1
