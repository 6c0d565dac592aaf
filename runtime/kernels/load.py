"""Which bytes of which files make up a stretch of an operand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...compiler.dtypes import SIZES
from ...compiler.plan import Gather, Stream


@dataclass(frozen=True, slots=True)
class Part:
    """Elements `[first, first + count)` of a block: the mean over terms (source, element), zeros without any."""

    first: int
    count: int
    terms: tuple[tuple[int, int], ...]


def file_ranges(stream: Stream, first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """(file, start, nbytes) of elements `[first, first + count)`, in order. Raises ValueError past the end."""
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


def gather_parts(gather: Gather, first: int, count: int) -> Iterator[Part]:
    """The parts of elements `[first, first + count)`, in order; within a part every term is contiguous."""
    width, end, begin = gather.width, first + count, 0
    for run in gather.runs:
        stop = begin + run.rows * width
        low, high = max(begin, first), min(stop, end)
        if low < high:
            yield Part(low - first, high - low, tuple((s, row * width + low - begin) for s, row in run.terms))
        begin = stop
        if begin >= end:
            return
    if begin < end:
        raise ValueError("a gather's runs are fewer than its rows")
