"""Functions whose results aren't rationals, on the CPU in float32: `exp`, `log`, `sin` and their like.

They are those of the compiled side, `native/functions.h`, where methods and sources are told: the same IEEE operations
in the same order, so the same bits. In float64, which has no compiled side, and on accelerators torch's own are used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy
import torch
from numpy.typing import NDArray

from ..reduce.reducer import Attributes
from ..stream.range_reduction import PARTS
from .values import Block, Kernel, Value, tensor

PIECE = 4096
"""Elements that a function works on at a time, so that what lies between its operations stays in cache."""

WORK = 8
"""Arrays of float64 that it needs meanwhile, which `compiler/ops/table.py` counts. Masks of a piece numpy allocates."""

Wide = NDArray[numpy.float64]
Single = NDArray[numpy.float32]

_SHIFT = 1.5 * 2.0**52
_LN2 = 0.6931471805599453
_LN2_HIGH, _LN2_LOW = 0.6931471805592082, 7.371002565167799e-13
_LOG2_E = 1.4426950408889634
_HALF_PI = 1.5707963267948966

# polynomials, by ascending powers
_EXP = (
    1.0000000000000013, 0.5000000000000001, 0.16666666666615607, 0.04166666666662413, 0.008333333367332009,
    0.0013888888917213717, 0.0001984119061583585, 2.4801521295954376e-05, 2.763265575933203e-06,
    2.7620088445409746e-07,
)  # fmt: skip
_LOG = (
    0.6666666666666208, 0.400000000112122, 0.2857142413651635, 0.22222862476849542, 0.18140185202493248,
    0.166219470901774,
)  # fmt: skip
_ASIN = (
    0.1666666666666695, 0.07499999999726302, 0.044642857578717755, 0.030381917485400308, 0.022373010066676288,
    0.017337192543712077, 0.014140941807431192, 0.0102896411236249, 0.015445133336819308, -0.006822043980671263,
    0.027871289137110143,
)  # fmt: skip
_SIN = (
    -0.16666666666666666, 0.008333333333330948, -0.00019841269836756774, 2.7557316101617874e-06,
    -2.505113165023518e-08, 1.5918115263265974e-10,
)  # fmt: skip
_COS = (
    0.041666666666666664, -0.0013888888888887398, 2.480158729876456e-05, -2.7557317271145144e-07,
    2.087614614655861e-09, -1.1382623647474604e-11,
)  # fmt: skip


def _polynomial(coefficients: Sequence[float], x: Wide, out: Wide, even: Wide, square: Wide) -> None:
    """The polynomial at x to `out`, summed in halves; x squared to `square`."""
    numpy.multiply(x, x, out=square)
    for half, powers in ((even, coefficients[::2]), (out, coefficients[1::2])):
        half.fill(powers[-1])
        for coefficient in reversed(powers[:-1]):
            half *= square
            half += coefficient
    out *= x
    out += even


def _split_exp(x: Wide, power: Wide, grown: Wide, n: Wide, even: Wide) -> None:
    """e^r - 1 to `grown` and 2^n to `power`, where x = n·ln 2 + r; x and the others become scratch."""
    numpy.multiply(x, _LOG2_E, out=power)
    power += _SHIFT
    numpy.subtract(power, _SHIFT, out=n)
    x -= numpy.multiply(n, _LN2_HIGH, out=grown)
    n *= _LN2_LOW
    x -= n
    _polynomial(_EXP, x, grown, even, n)
    grown *= x
    words = power.view(numpy.int64)
    words += 1023
    words <<= 52


def _exp(x: Wide, power: Wide, grown: Wide, n: Wide, even: Wide, *_: Wide) -> None:
    # bounds let NaNs through
    numpy.minimum(numpy.maximum(x, -110.0, out=x), 90.0, out=x)
    _split_exp(x, power, grown, n, even)
    numpy.multiply(power, grown, out=x)
    x += power


def _tanh(x: Wide, power: Wide, grown: Wide, n: Wide, even: Wide, twice: Wide, *_: Wide) -> None:
    numpy.fabs(x, out=twice)
    twice *= 2.0
    numpy.minimum(twice, 40.0, out=twice)
    _split_exp(twice, power, grown, n, even)
    grown *= power
    power -= 1.0
    grown += power
    numpy.add(grown, 2.0, out=n)
    grown /= n
    numpy.copysign(grown, x, out=x)


def _log_positive(x: Wide, n: Wide, s: Wide, z: Wide, p: Wide, even: Wide, square: Wide) -> None:
    """Of numbers above 0, 0, infinity and NaN."""
    words, biased, m = x.view(numpy.uint64), n.view(numpy.uint64), z.view(numpy.uint64)
    numpy.add(words, numpy.uint64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD), out=biased)
    biased >>= numpy.uint64(52)
    numpy.subtract(biased, numpy.uint64(1023), out=m)
    m <<= numpy.uint64(52)
    numpy.subtract(words, m, out=m)
    biased |= numpy.uint64(0x4330000000000000)
    n -= 2.0**52 + 1023.0
    numpy.add(z, 1.0, out=p)
    numpy.subtract(z, 1.0, out=s)
    s /= p
    numpy.multiply(s, s, out=z)
    _polynomial(_LOG, z, p, even, square)
    z *= p
    z *= s
    s *= 2.0
    s += z
    n *= _LN2
    n += s
    zero = x == 0.0
    numpy.copyto(x, n, where=x < numpy.inf)
    x[zero] = -numpy.inf


def _log(x: Wide, *work: Wide) -> None:
    negative = x < 0.0
    _log_positive(x, *work[:6])
    x[negative] = numpy.nan


def _acos(x: Wide, a: Wide, z: Wide, s: Wide, p: Wide, even: Wide, *_: Wide) -> None:
    numpy.fabs(x, out=a)
    far = a > 0.5
    numpy.subtract(1.0, a, out=p)
    p *= 0.5
    numpy.multiply(a, a, out=z)
    numpy.copyto(z, p, where=far)
    numpy.sqrt(p, out=p)
    s[:] = a
    numpy.copyto(s, p, where=far)
    _polynomial(_ASIN, z, p, even, a)
    z *= p
    z *= s
    s += z
    numpy.multiply(s, 2.0, out=z)
    numpy.copyto(z, numpy.subtract(_HALF_PI * 2.0, z, out=p), where=x < 0.0)
    numpy.subtract(_HALF_PI, numpy.copysign(s, x, out=s), out=x)
    numpy.copyto(x, z, where=far)


def _sin(quarter: int, x: Single, out: Single, work: Sequence[Wide]) -> None:
    a, b, n, r, p, q, *_ = work
    # what the float32 consists of, in halves of arrays
    signs, exponents, m = a.view(numpy.int32)[: x.size], b.view(numpy.int32)[: x.size], n.view(numpy.int32)[: x.size]
    bits = x.view(numpy.int32)
    numpy.right_shift(bits, 23, out=exponents)
    exponents &= 255
    numpy.bitwise_and(bits, 0x7FFFFF, out=m)
    numpy.bitwise_or(m, 0x800000, out=m, where=exponents != 0)
    p[:] = m
    places = q.view(numpy.int64)
    places[:] = exponents
    numpy.right_shift(bits, 31, out=signs)
    negative = signs != 0
    for part, target in zip(PARTS, (a, b, r), strict=True):
        numpy.take(part, places, out=target, mode="clip")
        target *= p
    numpy.add(a, b, out=q)
    q += _SHIFT
    numpy.subtract(q, _SHIFT, out=n)
    a -= n
    a += b
    r += a
    r *= _HALF_PI
    turned = q.view(numpy.int64)
    turned += quarter
    even, minus = (turned & 1) == 0, (turned & 2) != 0
    if not quarter:
        minus ^= negative
    numpy.multiply(r, r, out=a)
    _polynomial(_SIN, a, p, n, b)
    p *= a
    p *= r
    p += r
    _polynomial(_COS, a, q, n, b)
    q *= b
    a *= 0.5
    numpy.subtract(1.0, a, out=a)
    q += a
    numpy.copyto(q, p, where=even)
    numpy.negative(q, out=q, where=minus)
    out[:] = q


def _pow(x: Wide, y: Wide, *work: Wide) -> None:
    """x^y to x."""
    half = work[0]
    numpy.trunc(numpy.multiply(y, 0.5, out=half), out=half)
    half *= 2.0
    odd = numpy.fabs(numpy.subtract(y, half, out=half), out=half) == 1.0
    minus = numpy.signbit(x) & odd
    one = (y == 0.0) | (x == 1.0)
    undefined = (x < 0.0) & (x > -numpy.inf) & (y != numpy.trunc(y, out=half))
    numpy.minimum(numpy.maximum(y, -1e300, out=y), 1e300, out=y)
    numpy.fabs(x, out=x)
    _log_positive(x, *work)
    x *= y
    x[one] = 0.0
    _exp(x, *work)
    numpy.negative(x, out=x, where=minus)
    x[undefined] = numpy.nan


def _pieces(block: Block, out: torch.Tensor) -> tuple[Single, list[Wide], range]:
    """The result as numpy has it, memory to work in, and where pieces begin."""
    size = min(PIECE, block.count)
    words = block.shared[: 8 * WORK * size].numpy().view(numpy.float64)
    return out.numpy(), [words[i * size : (i + 1) * size] for i in range(WORK)], range(0, block.count, PIECE)


def _of(function: Callable[[Single, Single, list[Wide]], None], otherwise: Kernel) -> Kernel:
    """The kernel of a function from its first array into its second, with memory to work in."""

    def kernel(block: Block, out: torch.Tensor, args: tuple[Value, ...], attributes: Attributes) -> None:
        if out.dtype != torch.float32:
            otherwise(block, out, args, attributes)
            return
        x = tensor(args[0]).numpy()
        result, work, starts = _pieces(block, out)
        with numpy.errstate(all="ignore"):
            for start in starts:
                stop = min(start + PIECE, block.count)
                function(x[start:stop], result[start:stop], [w[: stop - start] for w in work])

    return kernel


def _in_place(function: Callable[..., None]) -> Callable[[Single, Single, list[Wide]], None]:
    """A function that replaces its argument in the first of its arrays, as `_of` wants it."""

    def call(x: Single, result: Single, work: list[Wide]) -> None:
        work[0][:] = x
        function(*work)
        result[:] = work[0]

    return call


def pow_cpu(block: Block, out: torch.Tensor, args: tuple[Value, ...]) -> None:
    """Of float32 numbers; either argument may be a number."""
    x, y = (tensor(a).numpy() for a in args)
    result, work, starts = _pieces(block, out)
    with numpy.errstate(all="ignore"):
        for start in starts:
            stop = min(start + PIECE, block.count)
            first, second, *rest = (w[: stop - start] for w in work)
            first[:] = x[start:stop] if x.ndim else x
            second[:] = y[start:stop] if y.ndim else y
            _pow(first, second, *rest)
            result[start:stop] = first


def functions_on_the_cpu(torch_kernels: Mapping[str, Kernel]) -> Mapping[str, Kernel]:
    """The kernels of functions for the CPU; those given are for float64."""
    functions: dict[str, Callable[..., None]] = {"exp": _exp, "log": _log, "tanh": _tanh, "acos": _acos}
    made = {name: _of(_in_place(function), torch_kernels[name]) for name, function in functions.items()}
    circular = {name: functools.partial(_sin, quarter) for quarter, name in enumerate(("sin", "cos"))}
    return made | {name: _of(function, torch_kernels[name]) for name, function in circular.items()}
