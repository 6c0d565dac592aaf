"""What ops mean on plain numbers, where Python's operators raise: in float64, with IEEE results
instead."""

from __future__ import annotations

import math
from collections.abc import Callable

_NAN = math.nan


def div(a: float, b: float) -> float:
    if b:
        return a / b
    if a == 0 or math.isnan(a) or math.isnan(b):
        return _NAN
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def power(a: float, b: float) -> float:
    odd = math.isfinite(b) and b == math.floor(b) and b % 2 == 1
    if a == 0 and b < 0:
        return math.copysign(math.inf, a) if odd else math.inf
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and odd else math.inf
    except ValueError:
        return _NAN


def least(a: float, b: float) -> float:
    return _NAN if math.isnan(a) or math.isnan(b) else min(a, b)


def greatest(a: float, b: float) -> float:
    return _NAN if math.isnan(a) or math.isnan(b) else max(a, b)


def sign(a: float) -> float:
    return float((a > 0) - (a < 0))


def exp(a: float) -> float:
    try:
        return math.exp(a)
    except OverflowError:
        return math.inf


def log(a: float) -> float:
    return -math.inf if a == 0 else within(math.log)(a)


def within(function: Callable[[float], float]) -> Callable[[float], float]:
    """NaN outside the function's domain."""

    def total(a: float) -> float:
        try:
            return function(a)
        except ValueError:
            return _NAN

    return total


def trunc(a: float) -> float:
    return float(math.trunc(a)) if math.isfinite(a) else a


def truth(function: Callable[..., object]) -> Callable[..., float]:
    return lambda *args: float(bool(function(*args)))


both = truth(lambda a, b: a and b)
either = truth(lambda a, b: a or b)


def chosen(mask: float, then: float, other: float) -> float:
    return then if mask else other


def total(*values: float) -> float:
    return math.fsum(values)


def largest(*values: float) -> float:
    return max(values, default=-math.inf)


def smallest(*values: float) -> float:
    return min(values, default=math.inf)
