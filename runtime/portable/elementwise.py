"""Elementwise kernels: one table for every device, and faster forms of some for the CPU with equal results.

Of functions whose results are rounded, the CPU has its own in float32 (`transcendental.py`).

Numbers that stand for a whole tensor enter as 0-d tensors of the compute dtype: rounded first, as a block of
equal numbers would be, and never turned into a multiplication by a reciprocal, as CUDA does for host numbers.
"""

# ruff: noqa: ARG001 - all kernels have one signature

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy
import torch

from ...compiler.plan.plan import CHUNK
from ..reduce.reducer import Attributes, Threshold
from .extensions import installed
from .random import bernoulli, bernoulli_cpu
from .rows import row_max, row_rank, row_sum
from .transcendental import functions_on_the_cpu, pow_cpu
from .values import Block, Kernel, Number, Value, bits, magnitude_mask, tensor


def _torch(function: Callable[..., Any]) -> Kernel:
    def kernel(block: Block, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
        function(*map(tensor, args), out=out)

    return kernel


def _numpy(function: Callable[..., Any]) -> Kernel:
    def kernel(block: Block, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
        function(*(tensor(a).numpy() for a in args), out=out.numpy())

    return kernel


def _pow(block: Block, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    base, exponent = args
    if isinstance(exponent, Number):
        # torch knows quick forms of squares, roots and the like for a number on the host, but not for a 0-d tensor
        torch.pow(tensor(base), _rounded(exponent.value, out.dtype), out=out)
    else:
        torch.pow(tensor(base), tensor(exponent), out=out)


def _pow_cpu(block: Block, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    base, exponent = args
    power = _rounded(exponent.value, out.dtype) if isinstance(exponent, Number) else math.nan
    if power == 0.5:
        _sqrt_cpu(block, out, args, attributes)
    elif out.dtype != torch.float32:
        _pow(block, out, args, attributes)
    elif power == 2.0:
        torch.mul(tensor(base), tensor(base), out=out)
    else:
        pow_cpu(block, out, args)


def _sqrt_cpu(block: Block, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """numpy rounds roots as IEEE 754 asks, torch may be off in the last bit."""
    with numpy.errstate(invalid="ignore"):
        numpy.sqrt(tensor(args[0]).numpy(), out=out.numpy())


def _rounded(value: float, dtype: torch.dtype) -> float:
    with numpy.errstate(over="ignore"):
        return float(numpy.float32(value)) if dtype == torch.float32 else value


def _copied(block: Block, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    out.copy_(tensor(args[0]))


def _number_cpu(block: Block, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    # booleans are bytes 0 and 1; torch converts those in vectors, booleans one by one
    out.copy_(tensor(args[0]).view(torch.int8))


def _where(block: Block, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    mask, then, other = args
    if isinstance(mask, Number):
        out.copy_(tensor(then if mask.value else other))
    else:
        torch.where(tensor(mask), tensor(then), tensor(other), out=out)


def _where_cpu(block: Block, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """Selects by bits, as a branch an element costs several times as much."""
    if isinstance(args[0], Number):
        _where(block, out, args, attributes)
        return
    mask, then, other = map(tensor, args)
    # `out` is written before the last use of `other`, so where the two are one, the roles are exchanged
    exchanged = out.data_ptr() == other.data_ptr()
    if exchanged:
        then, other = other, then
    chosen, if_set, if_not, result = mask.view(torch.int8), bits(then), bits(other), bits(out)
    nothing = other.ndim == 0 and not bool(if_not)
    select = block.shared[: min(CHUNK, block.count) * out.element_size()].view(result.dtype)
    for start in range(0, block.count, CHUNK):
        part = slice(start, min(start + CHUNK, block.count))
        a = if_set[part] if then.ndim else if_set
        b = if_not[part] if other.ndim else if_not
        to, all_bits = result[part], select[: part.stop - part.start]
        all_bits.copy_(chosen[part])
        if exchanged:
            all_bits.sub_(1)
        else:
            all_bits.neg_()
        if nothing:
            torch.bitwise_and(a, all_bits, out=to)
        elif then.ndim or other.ndim:
            torch.bitwise_xor(a, b, out=to)
            to.bitwise_and_(all_bits).bitwise_xor_(b)
        else:
            torch.bitwise_and(all_bits, a ^ b, out=to)
            to.bitwise_xor_(b)


def _above(block: Block, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
    """Whether an element ranks within its threshold's k, in stretches that the cut doesn't divide."""
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
        "add": _torch(torch.add),
        "sub": _torch(torch.sub),
        "mul": _torch(torch.mul),
        "div": _torch(torch.div),
        "pow": _pow,
        "min": _torch(torch.minimum),
        "max": _torch(torch.maximum),
        "neg": _torch(torch.neg),
        "abs": _torch(torch.abs),
        "sign": _torch(torch.sign),
        "sqrt": _torch(torch.sqrt),
        "exp": _torch(torch.exp),
        "log": _torch(torch.log),
        "sin": _torch(torch.sin),
        "cos": _torch(torch.cos),
        "tanh": _torch(torch.tanh),
        "acos": _torch(torch.acos),
        "trunc": _torch(torch.trunc),
        "lt": _torch(torch.lt),
        "le": _torch(torch.le),
        "gt": _torch(torch.gt),
        "ge": _torch(torch.ge),
        "eq": _torch(torch.eq),
        "ne": _torch(torch.ne),
        "and": _torch(torch.logical_and),
        "or": _torch(torch.logical_or),
        "not": _torch(torch.logical_not),
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
    {
        **ELEMENTWISE,
        **functions_on_the_cpu(ELEMENTWISE),
        "pow": _pow_cpu,
        "sqrt": _sqrt_cpu,
        "lt": _numpy(numpy.less),
        "le": _numpy(numpy.less_equal),
        "gt": _numpy(numpy.greater),
        "ge": _numpy(numpy.greater_equal),
        "eq": _numpy(numpy.equal),
        "ne": _numpy(numpy.not_equal),
        "and": _numpy(numpy.logical_and),
        "or": _numpy(numpy.logical_or),
        "not": _numpy(numpy.logical_not),
        "where": _where_cpu,
        "number": _number_cpu,
        "bernoulli": bernoulli_cpu,
    }
)
"""The same on the CPU."""
