"""Elementwise ops on numbers a tensor: on the host, in float64, IEEE results instead of exceptions. Needs no torch."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType

from .means import geometric_median, karcher
from .radix import digit_of_rank, join_digits, number_of_digits, rank_in_digit

_NAN = math.nan


def _div(a: float, b: float) -> float:
    if b:
        return a / b
    if a == 0 or math.isnan(a) or math.isnan(b):
        return _NAN
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def _pow(a: float, b: float) -> float:
    odd = math.isfinite(b) and b == math.floor(b) and b % 2 == 1
    if a == 0 and b < 0:
        return math.copysign(math.inf, a) if odd else math.inf
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and odd else math.inf
    except ValueError:
        return _NAN


def _min(a: float, b: float) -> float:
    return _NAN if math.isnan(a) or math.isnan(b) else min(a, b)


def _max(a: float, b: float) -> float:
    return _NAN if math.isnan(a) or math.isnan(b) else max(a, b)


def _sign(a: float) -> float:
    return float((a > 0) - (a < 0))


def _exp(a: float) -> float:
    try:
        return math.exp(a)
    except OverflowError:
        return math.inf


def _log(a: float) -> float:
    return -math.inf if a == 0 else _within(math.log)(a)


def _within(function: Callable[[float], float]) -> Callable[[float], float]:
    """NaN outside the function's domain."""

    def total(a: float) -> float:
        try:
            return function(a)
        except ValueError:
            return _NAN

    return total


def _trunc(a: float) -> float:
    return float(math.trunc(a)) if math.isfinite(a) else a


def _truth(function: Callable[..., object]) -> Callable[..., float]:
    return lambda *args: float(bool(function(*args)))


SCALARS: Mapping[str, Callable[..., float]] = MappingProxyType(
    {
        "add": operator.add,
        "sub": operator.sub,
        "mul": operator.mul,
        "div": _div,
        "pow": _pow,
        "min": _min,
        "max": _max,
        "neg": operator.neg,
        "abs": abs,
        "sign": _sign,
        "sqrt": _within(math.sqrt),
        "exp": _exp,
        "log": _log,
        "sin": _within(math.sin),
        "cos": _within(math.cos),
        "tanh": math.tanh,
        "acos": _within(math.acos),
        "trunc": _trunc,
        "lt": _truth(operator.lt),
        "le": _truth(operator.le),
        "gt": _truth(operator.gt),
        "ge": _truth(operator.ge),
        "eq": _truth(operator.eq),
        "ne": _truth(operator.ne),
        "and": _truth(lambda a, b: a and b),
        "or": _truth(lambda a, b: a or b),
        "not": _truth(operator.not_),
        "where": lambda mask, then, other: then if mask else other,
        "number": float,
        "fill": float,
        "karcher": karcher,
        "geometric_median": geometric_median,
        "across_sum": lambda *values: math.fsum(values),
        "across_max": lambda *values: max(values, default=-math.inf),
        "across_min": lambda *values: min(values, default=math.inf),
        "digit_of_rank": digit_of_rank,
        "rank_in_digit": rank_in_digit,
        "join_digits": join_digits,
        "number_of_digits": number_of_digits,
    }
)
"""All scalar ops, and all elementwise ones but those that look beyond one element; masks are 0 or 1."""
