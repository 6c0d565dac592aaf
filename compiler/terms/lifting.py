"""Operations on whatever they are given: numbers at once, numbers that vary later, regions as a
term."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...grammar.diagnostic import error
from ...grammar.source import Span
from .kinds import kind_of
from .terms import Apply, NumberTerm, PlaceMap, Vary, Where, is_region
from .varying import once, resolve, varies


def as_region(value: Any, span: Span) -> Any:
    """A number (or place map) as a region; a region as it is. Raises MergecError (E0208) for
    anything else."""
    if is_region(value):
        return value
    if isinstance(value, int | float | Vary | PlaceMap):
        return NumberTerm(value, span)
    raise error("E0208", f"expected a region or a number, not {kind_of(value)}", span, kind_of(value))


def lift(
    op: str,
    function: Callable[..., Any],
    values: tuple[Any, ...],
    span: Span,
    text: str,
    operands: tuple[Span, ...] = (),
) -> Any:
    """An operation on whatever it is given: numbers at once, varying numbers later, regions as a
    term.

    `operands` are the spans of the values where they stand in the recipe itself.
    """
    spans = operands or (span,) * len(values)
    for v, at in zip(values, spans, strict=True):
        if not is_region(v) and not isinstance(v, int | float | Vary | PlaceMap):
            raise error("E0208", f"`{text}` can't take {kind_of(v)}", at, f"{kind_of(v)} here")
    if any(is_region(v) for v in values):
        return Apply(op, tuple(as_region(v, at) for v, at in zip(values, spans, strict=True)), span)
    if any(varies(v) for v in values):

        def vary(where: Where) -> Any:
            return guarded(function, [resolve(v, where) for v in values], span, text, where.output)

        return once(vary, span, span.text)
    return guarded(function, list(values), span, text)


def guarded(function: Callable[..., Any], values: list[Any], span: Span, text: str, tensor: str = "") -> Any:
    """Plain arithmetic whose failures are diagnostics (E0216): division by zero, overflow, domain.

    `tensor` is the output tensor that the values were resolved for, where they vary.
    """
    odd = next((v for v in values if not isinstance(v, int | float)), 0)
    if not isinstance(odd, int | float):
        at = f" at `{tensor}`" if tensor else ""
        raise error("E0208", f"`{text}` can't take {kind_of(odd)}", span, f"{kind_of(odd)}{at}")
    try:
        result = function(*values)
        fault = "no real number" if isinstance(result, complex) else ""
        if isinstance(result, float) and not math.isfinite(result):
            fault = "too large for a number"
        if isinstance(result, int):
            float(result)  # whole numbers are exact as far as there are floats, and end where those end
    except ZeroDivisionError:
        fault = "division by zero"
    except OverflowError:
        fault = "too large for a number"
    except ValueError:
        fault = "no real number"
    if fault:
        shown = " and ".join(f"{v:g}" for v in values)
        notes = (f"at `{tensor}`",) if tensor else ()
        raise error("E0216", f"`{text}` of {shown} is not a number", span, fault, notes=notes)
    return result


def power(base: Any, exponent: Any) -> Any:
    """`base ** exponent`; one that is clearly too large is not worked out. Raises OverflowError."""
    if isinstance(base, int) and isinstance(exponent, int) and (base.bit_length() - 1) * exponent > 1100:
        raise OverflowError
    return base**exponent
