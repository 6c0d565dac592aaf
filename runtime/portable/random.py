"""Counter-based random masks: element i's bit depends on the key and i alone.

The generator is splitmix64 (G. L. Steele, D. Lea and C. H. Flood, Fast splittable pseudorandom
number generators, 2014): state `key + (i + 1) * STEP`, its finaliser z, and u = (z >> 40) / 2^24,
uniform on [0, 1) with 24 bits; the element is kept where u < p. The finaliser's last step, z ^ (z
>> 31), does not change the bits of u and is skipped.
"""

from __future__ import annotations

import math

import numpy
import torch

from ...compiler.plan.plan import CHUNK
from ..reduce.reducer import Attributes
from .values import BlockValue, ScalarValue, Value, tensor

STEP = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_WORD = 1 << 64

_STEPS = numpy.arange(1, CHUNK + 1, dtype=numpy.uint64) * numpy.uint64(STEP)
"""The states of a chunk's elements, less that of the element before them: a constant."""
_STEPS.flags.writeable = False


def _bound(p: ScalarValue) -> int:
    """The b for which u < p, p rounded to the compute dtype, is u * 2^24 < b."""
    rounded = p.tensor.item() if p.tensor.device.type == "cpu" else float(p.tensor.cpu())
    if math.isnan(rounded):
        return 0
    return math.ceil(min(max(rounded, 0.0), 1.0) * (1 << 24))


def bernoulli_cpu(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """Mask of the kept; the argument is the probability, one for all or one per element, the
    attribute `key` the mask's own.

    numpy's unsigned words take half of the time of torch's: 1.2 ns per element instead of 2.8.
    """
    p, key, n = args[0], int(attributes["key"]), min(CHUNK, block.count)
    words = block.shared[: 16 * n].numpy().view(numpy.uint64)
    bound = _bound(p) if isinstance(p, ScalarValue) else 0
    for start in range(0, block.count, CHUNK):
        count = min(CHUNK, block.count - start)
        z, t = words[:count], words[n : n + count]
        kept = out[start : start + count].numpy()
        if isinstance(p, ScalarValue) and bound in (0, 1 << 24):
            kept.fill(bound != 0)
            continue
        numpy.add(_STEPS[:count], numpy.uint64((key + (block.first + start) * STEP) % _WORD), out=z)
        numpy.right_shift(z, numpy.uint64(30), out=t)
        numpy.bitwise_xor(z, t, out=z)
        numpy.multiply(z, numpy.uint64(_FIRST), out=z)
        numpy.right_shift(z, numpy.uint64(27), out=t)
        numpy.bitwise_xor(z, t, out=z)
        numpy.multiply(z, numpy.uint64(_SECOND), out=z)
        if isinstance(p, ScalarValue):
            numpy.less(z, numpy.uint64(bound << 40), out=kept)
        else:
            probability = tensor(p)[start : start + count].numpy()
            numpy.right_shift(z, numpy.uint64(40), out=z)
            u = t.view(probability.dtype)[:count]
            numpy.copyto(u, z, casting="unsafe")
            numpy.multiply(u, probability.dtype.type(2.0**-24), out=u)
            numpy.less(u, probability, out=kept)


def bernoulli(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """The same on any device, in signed words: products wrap in the same way, shifts need their
    copies of the sign masked."""
    p, n = args[0], block.count
    words = block.shared[: 16 * n].view(torch.int64)
    z, t = words[:n], words[n:]
    torch.arange(block.first + 1, block.first + n + 1, out=z)
    z.mul_(_signed(STEP)).add_(_signed(int(attributes["key"])))
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        torch.bitwise_right_shift(z, shift, out=t)
        t.bitwise_and_((1 << (64 - shift)) - 1)
        z.bitwise_xor_(t).mul_(_signed(factor))
    z.bitwise_right_shift_(40).bitwise_and_((1 << 24) - 1)
    if isinstance(p, ScalarValue):
        torch.lt(z, _bound(p), out=out)
    else:
        probability = tensor(p)
        u = t.view(probability.dtype)[:n]
        u.copy_(z).mul_(2.0**-24)
        torch.lt(u, probability, out=out)


def _signed(word: int) -> int:
    word %= _WORD
    return word - _WORD if word >= _WORD >> 1 else word
