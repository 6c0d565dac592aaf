"""Arithmetic on single numbers with IEEE results: 1/0 is infinity, acos(2) is NaN, nothing raises.

Used to fold constants while compiling and for what a reduction's result goes through at run time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence


def _ieee(function: Callable[..., float], overflow: float = math.inf) -> Callable[..., float]:
    def run(*values: float) -> float:
        try:
            result = function(*values)
        except OverflowError:
            return overflow
        except (ValueError, ZeroDivisionError):
            return math.nan
        return math.nan if isinstance(result, complex) else result

    return run


def _div(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


def _log(x: float) -> float:
    return -math.inf if x == 0 else math.log(x)


def _sign(x: float) -> float:
    return math.nan if math.isnan(x) else float((x > 0) - (x < 0))


def _smaller(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else min(a, b)


def _larger(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


SCALAR: Mapping[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _div,
    "pow": _ieee(math.pow),
    "min": _smaller,
    "max": _larger,
    "neg": lambda a: -a,
    "abs": abs,
    "sign": _sign,
    "sqrt": _ieee(math.sqrt),
    "exp": _ieee(math.exp),
    "log": _ieee(_log),
    "sin": _ieee(math.sin),
    "cos": _ieee(math.cos),
    "tanh": math.tanh,
    "acos": _ieee(math.acos),
    "lt": lambda a, b: float(a < b),
    "le": lambda a, b: float(a <= b),
    "gt": lambda a, b: float(a > b),
    "ge": lambda a, b: float(a >= b),
    "eq": lambda a, b: float(a == b),
    "ne": lambda a, b: float(a != b),
    "and": lambda a, b: float(bool(a) and bool(b)),
    "or": lambda a, b: float(bool(a) or bool(b)),
    "not": lambda a: float(not a),
    "where": lambda c, a, b: a if c else b,
    "number": lambda a: a,
}


def evaluate_scalar(op: str, values: Sequence[float]) -> float:
    """`op` on numbers, in float64. Raises KeyError for an op that has no meaning on numbers."""
    return SCALAR[op](*values)
