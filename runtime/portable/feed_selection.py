"""Counting bit patterns in blocks: what feeds a `Selection` and `Digits`."""

from __future__ import annotations

import numpy
import torch
from numpy.typing import NDArray

from ...compiler.plan.plan import CHUNK
from ..reduce.counting import BINS, DIGIT
from ..reduce.selection import FEW, Magnitudes, Selection
from ..reduce.windows import Counting, everything
from .histogram import histogram_of
from .values import Block, bits

_UNSIGNED = {4: numpy.uint32, 8: numpy.uint64}


def feed_selection(
    selection: Magnitudes, block: Block, args: tuple[torch.Tensor, ...], state: torch.Tensor | None
) -> None:
    """Counts what the round asks for; `state` is the lane's histogram."""
    if selection.done:
        return
    words, cpu = bits(args[0]), args[0].device.type == "cpu"
    if isinstance(selection, Selection) and selection.counting_ties:
        (_count_ties_cpu if cpu else _count_ties)(selection, block, words)
        return
    assert state is not None
    # there is no second, nor one of which lanes say what is above it: nobody asks this side for a sample
    (counting,) = selection.counting
    every = counting.window == everything(selection.width)
    count = _count if not cpu else _count_all_cpu if every else _count_few_cpu
    count(counting, selection.magnitude, block, words, histogram_of(counting.histograms, state))


def _count_all_cpu(_: Counting, __: int, block: Block, words: torch.Tensor, histogram: torch.Tensor) -> None:
    """All patterns by their highest 16 bits; the sign is cleared, so these fit the int16 that torch counts quickest."""
    high = block.shared[: 2 * block.count].view(torch.int16)
    digits = high.numpy()
    step = words.element_size() // 2
    numpy.copyto(digits, words.view(torch.int16).numpy()[step - 1 :: step])
    numpy.bitwise_and(digits, 0x7FFF, out=digits)
    counts = histogram.numpy()
    counts[: BINS // 2] += torch.bincount(high, minlength=BINS // 2).numpy()


def _count_few_cpu(
    counting: Counting, magnitude: int, block: Block, words: torch.Tensor, histogram: torch.Tensor
) -> None:
    """The patterns of a window that few are in, so these are picked out."""
    counts, window = histogram.numpy(), counting.window
    for chunk, part, scratch, inside in _chunks(block, words):
        numpy.bitwise_and(part, part.dtype.type(magnitude), out=scratch)
        numpy.subtract(scratch, part.dtype.type(window.first), out=scratch)
        numpy.right_shift(scratch, window.shift, out=scratch)
        # of what lies below the window, the sign makes a large unsigned number
        numpy.less(scratch.view(_UNSIGNED[scratch.itemsize]), BINS, out=inside)
        picked = scratch[numpy.flatnonzero(inside)]
        if picked.size:
            bins, sizes = numpy.unique(picked, return_counts=True)
            counts[bins] += sizes
            if not window.shift:
                few = bins.size <= FEW
                counting.remember(chunk, dict(zip(bins.tolist(), sizes.tolist(), strict=True)) if few else None)


def _count_ties_cpu(selection: Selection, block: Block, words: torch.Tensor) -> None:
    for chunk, part, scratch, equal in _chunks(block, words):
        numpy.bitwise_and(part, part.dtype.type(selection.magnitude), out=scratch)
        numpy.equal(scratch, part.dtype.type(selection.pattern), out=equal)
        selection.tie(chunk, int(numpy.count_nonzero(equal)))


def _chunks(
    block: Block, words: torch.Tensor
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


def _count(counting: Counting, magnitude: int, block: Block, words: torch.Tensor, histogram: torch.Tensor) -> None:
    """A window on an accelerator: every element adds 1 or 0, which spreads better than one bin for the others."""
    scratch = block.shared[: 16 * block.count].view(torch.int64)
    bins, ones = scratch[: block.count], scratch[block.count :]
    window = counting.window
    bins.copy_(words).bitwise_and_(magnitude).sub_(window.first).bitwise_right_shift_(window.shift)
    torch.bitwise_right_shift(bins, DIGIT, out=ones)
    torch.eq(ones, 0, out=ones)
    bins.bitwise_and_(BINS - 1)
    histogram.scatter_add_(0, bins, ones)


def _count_ties(selection: Selection, block: Block, words: torch.Tensor) -> None:
    equal = block.shared[: 8 * block.count].view(torch.int64)
    equal.copy_(words).bitwise_and_(selection.magnitude)
    torch.eq(equal, selection.pattern, out=equal)
    starts = range(0, block.count, CHUNK)
    counts = torch.stack([equal[start : start + CHUNK].sum() for start in starts]).cpu()
    for start, count in zip(starts, counts, strict=True):
        selection.tie((block.first + start) // CHUNK, int(count))
