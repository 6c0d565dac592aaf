"""Counting words in ascending order in blocks: what feeds a `Quantile`."""

from __future__ import annotations

import numpy
import torch

from ...compiler.plan.plan import CHUNK
from ..reduce.counting import BINS, DIGIT
from ..reduce.quantile import Quantile
from .histogram import histogram_of
from .values import Block, bits


def feed_quantile(quantile: Quantile, block: Block, args: tuple[torch.Tensor, ...], state: torch.Tensor | None) -> None:
    """Counts the round's digit; `state` is the lane's histogram."""
    if not quantile.done:
        assert state is not None
        count = _count_cpu if args[0].device.type == "cpu" else _count
        count(quantile, block, args[0], histogram_of(quantile.histograms, state))


def _count_cpu(quantile: Quantile, block: Block, x: torch.Tensor, histogram: torch.Tensor) -> None:
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


def _count(quantile: Quantile, block: Block, x: torch.Tensor, histogram: torch.Tensor) -> None:
    """On an accelerator every element adds 1 or 0, which spreads better than one bin for all others."""
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
