"""Reductions of a block: what feeds a pass's reducers (`runtime/reduce/`).

Numbers are summed in float64 by chunk, in an order of its own that numpy's kernels and the compiled
ones keep (`summation.py`); the chunks' sums are exactly rounded at the end. What looks for a number
by its rank counts bit patterns into a histogram in the lane's memory. Either has a form for the
CPU, which works through a block chunk by chunk, and one for accelerators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy
import torch
from numpy.typing import NDArray

from ...compiler.ops.table import OPS
from ...compiler.plan.plan import CHUNK
from ..reduce.counting import BINS, DIGIT, Counts, LaneHistograms
from ..reduce.quantile import Quantile
from ..reduce.reducer import Partials
from ..reduce.selection import FEW, Magnitudes, RankSelection
from ..reduce.windows import Counting, everything
from ..stream.summation import lane_sums
from .values import BlockValue, bits

Args = tuple[torch.Tensor, ...]
"""Blocks of numbers in the compute dtype or of booleans, 1-d, all of one length."""

Feed = Callable[[Any, BlockValue, Args, torch.Tensor | None], None]
"""Feeds a reducer one block: its args, and the bytes of state that the lane keeps for the
reduction."""

_UNSIGNED = {4: numpy.uint32, 8: numpy.uint64}


# --- one number per chunk or block


def _partial(partials: Callable[[BlockValue, Args], list[float]]) -> Feed:
    def feed(reducer: Partials, block: BlockValue, args: Args, _: torch.Tensor | None) -> None:
        reducer.keep(block.first, partials(block, args))

    return feed


def _sums(array: str) -> Callable[[BlockValue, Args], list[float]]:
    """Of every chunk the float64 sum of what a function of torch makes of the args, or of the one
    arg itself."""
    function = getattr(torch, array) if array else None

    def sums(block: BlockValue, args: Args) -> list[float]:
        on_cpu = args[0].device.type == "cpu"
        size = min(CHUNK, block.count) if on_cpu else block.count
        words = block.shared[: 8 * size * len(args)].view(torch.float64).view(len(args), size)
        found = []
        for start in range(0, block.count, size):
            count = min(size, block.count - start)
            wide = [row[:count].copy_(arg[start : start + count]) for row, arg in zip(words, args, strict=True)]
            if function is not None:
                function(*wide, out=wide[0])
            found += [float(lane_sums(wide[0].numpy()[None])[0])] if on_cpu else _halves(wide[0])
        return found

    return sums


def _halves(wide: torch.Tensor) -> list[float]:
    """The sum of every chunk: halves are added to halves, an order that doesn't depend on how many
    chunks there are."""
    whole = wide.numel() // CHUNK
    sums = []
    for rows in (wide[: whole * CHUNK].view(whole, CHUNK), wide[whole * CHUNK :].view(1, -1)):
        width = rows.shape[1]
        if not rows.numel():
            continue
        while width > 1:
            half = (width + 1) // 2
            rows[:, : width - half].add_(rows[:, half:width])
            width = half
        sums.append(rows[:, 0])
    return [float(s) for s in torch.cat(sums).cpu()]


def _count(_: BlockValue, args: Args) -> list[float]:
    return [float(torch.count_nonzero(args[0]))]


# of zeros, 0: whether 0 or -0 came first is not the same everywhere


def _largest(_: BlockValue, args: Args) -> list[float]:
    return [float(torch.amax(args[0])) + 0.0]


def _smallest(_: BlockValue, args: Args) -> list[float]:
    return [float(torch.amin(args[0])) + 0.0]


# --- counts of bit patterns


def histogram_of(histograms: LaneHistograms, state: torch.Tensor) -> torch.Tensor:
    """The lane's counts (`BINS` of int64) in its `state`, zeroed when it first asks in a round."""
    counts = state[: 8 * BINS].view(torch.int64)

    def read() -> Counts:
        return counts.cpu().numpy()

    if histograms.enter(state.data_ptr(), read):
        counts.zero_()
    return counts


def _magnitudes(selection: Magnitudes, block: BlockValue, args: Args, state: torch.Tensor | None) -> None:
    """Counts what the round asks for; `state` is the lane's histogram."""
    if selection.done:
        return
    words, cpu = bits(args[0]), args[0].device.type == "cpu"
    if isinstance(selection, RankSelection) and selection.counting_ties:
        (_ties_cpu if cpu else _ties)(selection, block, words)
        return
    assert state is not None
    # there is no second, nor one of which lanes say what is above it: nobody asks this backend for
    # a sample
    (counting,) = selection.counting
    every = counting.window == everything(selection.width)
    count = _window if not cpu else _all_cpu if every else _few_cpu
    count(counting, selection.magnitude, block, words, histogram_of(counting.histograms, state))


def _all_cpu(_: Counting, __: int, block: BlockValue, words: torch.Tensor, histogram: torch.Tensor) -> None:
    """All patterns by their highest 16 bits; the sign is cleared, so these fit the int16 that torch
    counts quickest."""
    high = block.shared[: 2 * block.count].view(torch.int16)
    digits = high.numpy()
    step = words.element_size() // 2
    numpy.copyto(digits, words.view(torch.int16).numpy()[step - 1 :: step])
    numpy.bitwise_and(digits, 0x7FFF, out=digits)
    counts = histogram.numpy()
    counts[: BINS // 2] += torch.bincount(high, minlength=BINS // 2).numpy()


def _few_cpu(
    counting: Counting, magnitude: int, block: BlockValue, words: torch.Tensor, histogram: torch.Tensor
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


def _ties_cpu(selection: RankSelection, block: BlockValue, words: torch.Tensor) -> None:
    for chunk, part, scratch, equal in _chunks(block, words):
        numpy.bitwise_and(part, part.dtype.type(selection.magnitude), out=scratch)
        numpy.equal(scratch, part.dtype.type(selection.pattern), out=equal)
        selection.tie(chunk, int(numpy.count_nonzero(equal)))


def _chunks(
    block: BlockValue, words: torch.Tensor
) -> list[tuple[int, NDArray[numpy.signedinteger], NDArray[numpy.signedinteger], NDArray[numpy.bool_]]]:
    """(index in the tensor, words, scratch for as many words, scratch for as many booleans) of
    every chunk."""
    whole, size = words.numpy(), min(CHUNK, block.count)
    width = words.element_size() * size
    scratch = block.shared[:width].view(words.dtype).numpy()
    equal = block.shared[width : width + size].view(torch.bool).numpy()
    chunks = []
    for start in range(0, block.count, CHUNK):
        part = whole[start : start + CHUNK]
        chunks.append(((block.first + start) // CHUNK, part, scratch[: part.size], equal[: part.size]))
    return chunks


def _window(
    counting: Counting, magnitude: int, block: BlockValue, words: torch.Tensor, histogram: torch.Tensor
) -> None:
    """A window on an accelerator: every element adds 1 or 0, which spreads better than one bin for
    the others."""
    scratch = block.shared[: 16 * block.count].view(torch.int64)
    bins, ones = scratch[: block.count], scratch[block.count :]
    window = counting.window
    bins.copy_(words).bitwise_and_(magnitude).sub_(window.first).bitwise_right_shift_(window.shift)
    torch.bitwise_right_shift(bins, DIGIT, out=ones)
    torch.eq(ones, 0, out=ones)
    bins.bitwise_and_(BINS - 1)
    histogram.scatter_add_(0, bins, ones)


def _ties(selection: RankSelection, block: BlockValue, words: torch.Tensor) -> None:
    equal = block.shared[: 8 * block.count].view(torch.int64)
    equal.copy_(words).bitwise_and_(selection.magnitude)
    torch.eq(equal, selection.pattern, out=equal)
    starts = range(0, block.count, CHUNK)
    counts = torch.stack([equal[start : start + CHUNK].sum() for start in starts]).cpu()
    for start, count in zip(starts, counts, strict=True):
        selection.tie((block.first + start) // CHUNK, int(count))


def _order(quantile: Quantile, block: BlockValue, args: Args, state: torch.Tensor | None) -> None:
    """Counts the round's digit; `state` is the lane's histogram."""
    if not quantile.done:
        assert state is not None
        count = _order_cpu if args[0].device.type == "cpu" else _order_device
        count(quantile, block, args[0], histogram_of(quantile.histograms, state))


def _order_cpu(quantile: Quantile, block: BlockValue, x: torch.Tensor, histogram: torch.Tensor) -> None:
    numbers, patterns, counts = x.numpy(), bits(x).numpy(), histogram.numpy()
    size = min(CHUNK, block.count)
    wide = block.shared[: 8 * size].view(torch.int64).numpy()
    words = block.shared[8 * size : (8 + patterns.itemsize) * size].view(bits(x).dtype).numpy()
    flags = block.shared[16 * size : 17 * size].view(torch.bool).numpy()
    for start in range(0, block.count, CHUNK):
        pattern = patterns[start : start + CHUNK]
        word, flag, digits = words[: pattern.size], flags[: pattern.size], wide[: pattern.size]
        numpy.right_shift(pattern, quantile.width - 1, out=word)
        numpy.bitwise_and(word, word.dtype.type(quantile.magnitude), out=word)
        numpy.bitwise_xor(word, pattern, out=word)
        numpy.isnan(numbers[start : start + CHUNK], out=flag)
        if flag.any():
            word[flag] = quantile.magnitude
        if quantile.shift + DIGIT == quantile.width:
            numpy.right_shift(word, quantile.shift, out=word)
            numpy.add(word, BINS // 2, out=digits)
            counts += numpy.bincount(digits, minlength=BINS)
            continue
        # later digits are counted of few elements, so these are picked out
        numpy.right_shift(word, quantile.shift + DIGIT, out=digits)
        numpy.equal(digits, quantile.begins(), out=flag)
        picked = word[flag]
        if picked.size:
            found, sizes = numpy.unique(picked >> quantile.shift & BINS - 1, return_counts=True)
            counts[found] += sizes


def _order_device(quantile: Quantile, block: BlockValue, x: torch.Tensor, histogram: torch.Tensor) -> None:
    """On an accelerator every element adds 1 or 0, which spreads better than one bin for all
    others."""
    n = block.count
    scratch = block.shared[: 16 * n].view(torch.int64)
    words, ones = scratch[:n], scratch[n:]
    flags = block.shared[16 * n : 17 * n].view(torch.bool)
    words.copy_(bits(x))
    torch.bitwise_right_shift(words, 63, out=ones)
    words.bitwise_xor_(ones.bitwise_and_(quantile.magnitude))
    words.masked_fill_(torch.ne(x, x, out=flags), quantile.magnitude)
    if quantile.shift + DIGIT == quantile.width:
        ones.fill_(1)
        words.bitwise_right_shift_(quantile.shift).add_(BINS // 2)
    else:
        torch.bitwise_right_shift(words, quantile.shift + DIGIT, out=ones)
        torch.eq(ones, quantile.begins(), out=ones)
        words.bitwise_right_shift_(quantile.shift).bitwise_and_(BINS - 1)
    histogram.scatter_add_(0, words, ones)


def _feed_of(accumulator: str, array: str) -> Feed:
    feeds: dict[str, Feed] = {
        "sum": _partial(_sums(array)),
        "count": _partial(_count),
        "largest": _partial(_largest),
        "smallest": _partial(_smallest),
        "magnitudes": _magnitudes,
        "digits": _magnitudes,
        "order": _order,
    }
    return feeds[accumulator]


FEEDS: Mapping[str, Feed] = MappingProxyType(
    {name: _feed_of(row.accumulator, row.array) for name, row in OPS.items() if row.kind == "reduction"}
)
"""How the reducer of every reduction is fed; `REDUCERS` has the reducers."""
