"""Elementwise kernels, by operation: most are a function of torch, which `array` in the table of
operations names.

Arithmetic and comparisons are IEEE 754's on every device. Functions such as `exp`, and powers, are
torch's: their last bits depend on its version and on the processor. The native backend has
functions of its own.

Numbers that stand for a whole tensor enter as 0-d tensors of the compute dtype: rounded first, as a
block of equal numbers would be, and never turned into a multiplication by a reciprocal, as CUDA
does for host numbers.
"""

# ruff: noqa: ARG001 - all kernels have one signature

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy
import torch

from ...compiler.ops.table import OPS
from ...compiler.plan.plan import CHUNK
from ..reduce.reducer import Attributes, Threshold
from .extensions import installed
from .random import bernoulli, bernoulli_cpu
from .rows import row_max, row_rank, row_sum
from .values import BlockValue, Kernel, ScalarValue, Value, bits, magnitude_mask, tensor

VECTORS = 64
"""Elements that are whole vectors of any processor, and of those of which torch takes two at a
time."""

POW_PIECE = 1 << 14
"""Of fewer than 2^15 elements torch shares no operation out among threads."""


def _torch(array: str) -> Kernel:
    function = getattr(torch, array)

    def kernel(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
        function(*map(tensor, args), out=out)

    return kernel


def _pow(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    base, exponent = args
    if isinstance(exponent, ScalarValue):
        # torch knows quick forms of squares, roots and the like for a number on the host, but not
        # for a 0-d tensor
        torch.pow(tensor(base), _rounded(exponent.value, out.dtype), out=out)
    else:
        torch.pow(tensor(base), tensor(exponent), out=out)


def _pow_cpu(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """Roots as `_sqrt_cpu` has them. What torch's vectors leave over it computes otherwise, one by
    one, and what they leave over depends on where blocks and threads begin: so pieces are whole
    vectors, and too short for threads."""
    if isinstance(args[1], ScalarValue) and _rounded(args[1].value, out.dtype) == 0.5:
        _sqrt_cpu(block, out, args, attributes)
        return
    rest = block.count % VECTORS
    whole = block.count - rest
    for start in range(0, whole, POW_PIECE):
        part = slice(start, min(start + POW_PIECE, whole))
        _pow(block, out[part], tuple(a[part] if isinstance(a, torch.Tensor) else a for a in args), attributes)
    if rest:
        padded = block.shared[: 3 * VECTORS * out.element_size()].view(out.dtype).view(3, VECTORS).fill_(1.0)
        for row, a in zip(padded, args, strict=False):
            if isinstance(a, torch.Tensor):
                row[:rest] = a[whole:]
        few = tuple(row if isinstance(a, torch.Tensor) else a for row, a in zip(padded, args, strict=False))
        _pow(block, padded[2], few, attributes)
        out[whole:] = padded[2, :rest]


def _sqrt_cpu(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """numpy rounds roots as IEEE 754 asks, torch may be off in the last bit."""
    with numpy.errstate(invalid="ignore"):
        numpy.sqrt(tensor(args[0]).numpy(), out=out.numpy())


def _rounded(value: float, dtype: torch.dtype) -> float:
    with numpy.errstate(over="ignore"):
        return float(numpy.float32(value)) if dtype == torch.float32 else value


def _copied(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    out.copy_(tensor(args[0]))


def _where(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    mask, then, other = args
    if isinstance(mask, ScalarValue):
        out.copy_(tensor(then if mask.value else other))
    else:
        torch.where(tensor(mask), tensor(then), tensor(other), out=out)


def _where_cpu(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """Selects by bits: 0.5 to 0.9 ns per element, where torch branches at each and takes 3.5."""
    if isinstance(args[0], ScalarValue):
        _where(block, out, args, attributes)
        return
    mask, then, other = map(tensor, args)
    chosen, if_set, if_not, result = mask.view(torch.int8), bits(then), bits(other), bits(out)
    nothing = other.ndim == 0 and not bool(if_not)
    select = block.shared[: min(CHUNK, block.count) * out.element_size()].view(result.dtype)
    for start in range(0, block.count, CHUNK):
        part = slice(start, min(start + CHUNK, block.count))
        a = if_set[part] if then.ndim else if_set
        b = if_not[part] if other.ndim else if_not
        to, all_bits = result[part], select[: part.stop - part.start]
        all_bits.copy_(chosen[part]).neg_()
        if nothing:
            torch.bitwise_and(a, all_bits, out=to)
        elif then.ndim or other.ndim:
            torch.bitwise_xor(a, b, out=to)
            to.bitwise_and_(all_bits).bitwise_xor_(b)
        else:
            torch.bitwise_and(all_bits, a ^ b, out=to)
            to.bitwise_xor_(b)


def _above(block: BlockValue, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """Whether an element ranks within its threshold's k, in stretches that the cut doesn't
    divide."""
    threshold = args[1]
    assert isinstance(threshold, Threshold)
    x, mask = bits(tensor(args[0])), magnitude_mask(tensor(args[0]).dtype)
    cut = min(max(threshold.cut - block.first, 0), block.count)
    for start, stop, kept in ((0, cut, True), (cut, block.count, False)):
        # on an accelerator the stretches are whole, on the CPU they are chunks that stay in cache
        step = CHUNK if x.device.type == "cpu" else max(1, block.count)
        for first in range(start, stop, step):
            part = slice(first, min(first + step, stop))
            magnitude = block.shared[: (part.stop - first) * x.element_size()].view(x.dtype)
            torch.bitwise_and(x[part], mask, out=magnitude)
            _compare(magnitude, threshold.bits, out[part], kept)
    if threshold.extra and block.first <= threshold.cut < block.first + block.count:
        part = slice(cut, min(cut + CHUNK, block.count))
        magnitude = block.shared[: (part.stop - cut) * x.element_size()].view(x.dtype)
        torch.bitwise_and(x[part], mask, out=magnitude)
        equal = torch.nonzero(magnitude == threshold.bits).flatten()
        out[part].index_fill_(0, equal[: threshold.extra], True)


def _compare(magnitude: torch.Tensor, pattern: int, out: torch.Tensor, kept: bool) -> None:
    """`out = magnitude >= pattern` where elements at the threshold are `kept`, else `>`."""
    if magnitude.device.type == "cpu":
        # numpy compares in vectors, torch one by one
        (numpy.greater_equal if kept else numpy.greater)(magnitude.numpy(), pattern, out=out.numpy())
    else:
        (torch.ge if kept else torch.gt)(magnitude, pattern, out=out)


ELEMENTWISE: Mapping[str, Kernel] = MappingProxyType(
    {
        **{row.name: _torch(row.array) for row in OPS.values() if row.kind == "elementwise" and row.array},
        "pow": _pow,
        "where": _where,
        "number": _copied,
        "fill": _copied,
        "above": _above,
        "bernoulli": bernoulli,
        "row_sum": row_sum,
        "row_max": row_max,
        "row_rank": row_rank,
        "installed": installed,
    }
)
"""Every elementwise op's kernel, for any device."""

ELEMENTWISE_CPU: Mapping[str, Kernel] = MappingProxyType(
    {**ELEMENTWISE, "pow": _pow_cpu, "sqrt": _sqrt_cpu, "where": _where_cpu, "bernoulli": bernoulli_cpu}
)
"""The same on the CPU: roots as IEEE 754 asks, and what float64 would be slow without."""
