"""Counting bit patterns in blocks: what feeds a `Selection`."""

from __future__ import annotations

import numpy
import torch
from numpy.typing import NDArray

from ...compiler.plan import CHUNK
from ..digits import BINS, DIGIT
from ..selection import FEW, Selection
from .histogram import histogram_of
from .values import Block, bits


def feed_selection(
    selection: Selection, block: Block, args: tuple[torch.Tensor, ...], state: torch.Tensor | None
) -> None:
    """Counts what the round asks for; `state` is the lane's histogram."""
    if selection.done:
        return
    words, cpu = bits(args[0]), args[0].device.type == "cpu"
    if selection.counting_ties:
        (_count_ties_cpu if cpu else _count_ties)(selection, block, words)
        return
    assert state is not None
    histogram = histogram_of(selection.histograms, state)
    if not cpu:
        _count_digits(selection, block, words, histogram)
    elif selection.shift + DIGIT == selection.width:
        _count_first_cpu(selection, block, words, histogram)
    else:
        _count_digits_cpu(selection, block, words, histogram)


def _count_first_cpu(_: Selection, block: Block, words: torch.Tensor, histogram: torch.Tensor) -> None:
    """The highest digit, of all elements; the sign is cleared, so it fits the int16 that torch counts quickest."""
    high = block.shared[: 2 * block.count].view(torch.int16)
    digits = high.numpy()
    step = words.element_size() // 2
    numpy.copyto(digits, words.view(torch.int16).numpy()[step - 1 :: step])
    numpy.bitwise_and(digits, 0x7FFF, out=digits)
    counts = histogram.numpy()
    counts[: BINS // 2] += torch.bincount(high, minlength=BINS // 2).numpy()


def _count_digits_cpu(selection: Selection, block: Block, words: torch.Tensor, histogram: torch.Tensor) -> None:
    """A lower digit, of the elements that begin with the prefix: few, so they are picked out."""
    counts = histogram.numpy()
    known = selection.magnitude & -(1 << (selection.shift + DIGIT))
    for chunk, part, scratch, equal in _chunks(block, words):
        numpy.bitwise_and(part, part.dtype.type(known), out=scratch)
        numpy.equal(scratch, part.dtype.type(selection.prefix << (selection.shift + DIGIT)), out=equal)
        picked = part[numpy.flatnonzero(equal)]
        if picked.size:
            picked >>= selection.shift
            picked &= BINS - 1
            digits, sizes = numpy.unique(picked, return_counts=True)
            counts[digits] += sizes
            if not selection.shift:
                few = digits.size <= FEW
                selection.remember(chunk, dict(zip(digits.tolist(), sizes.tolist(), strict=True)) if few else None)


def _count_ties_cpu(selection: Selection, block: Block, words: torch.Tensor) -> None:
    for chunk, part, scratch, equal in _chunks(block, words):
        numpy.bitwise_and(part, part.dtype.type(selection.magnitude), out=scratch)
        numpy.equal(scratch, part.dtype.type(selection.prefix), out=equal)
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


def _count_digits(selection: Selection, block: Block, words: torch.Tensor, histogram: torch.Tensor) -> None:
    """A digit on an accelerator: every element adds 1 or 0, which spreads better than one bin for the others."""
    scratch = block.shared[: 16 * block.count].view(torch.int64)
    digits, ones = scratch[: block.count], scratch[block.count :]
    digits.copy_(words).bitwise_and_(selection.magnitude)
    torch.bitwise_right_shift(digits, selection.shift + DIGIT, out=ones) if selection.shift < 48 else ones.zero_()
    torch.eq(ones, selection.prefix, out=ones)
    digits.bitwise_right_shift_(selection.shift).bitwise_and_(BINS - 1)
    histogram.scatter_add_(0, digits, ones)


def _count_ties(selection: Selection, block: Block, words: torch.Tensor) -> None:
    equal = block.shared[: 8 * block.count].view(torch.int64)
    equal.copy_(words).bitwise_and_(selection.magnitude)
    torch.eq(equal, selection.prefix, out=equal)
    starts = range(0, block.count, CHUNK)
    counts = torch.stack([equal[start : start + CHUNK].sum() for start in starts]).cpu()
    for start, count in zip(starts, counts, strict=True):
        selection.tie((block.first + start) // CHUNK, int(count))
