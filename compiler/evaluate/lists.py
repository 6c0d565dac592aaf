"""What the functions of the language that work on lists give; they run while compiling.

`given` are the arguments by parameter, `span` where the call stands. A wrong argument raises
MergecError.
"""

from __future__ import annotations

from typing import Any

from ...grammar.diagnostic import error
from ...grammar.source import Span
from ..terms.kinds import kind_of
from ..terms.terms import Present, Vary, Where


def each(given: dict[str, Any], span: Span) -> Any:
    value, models = given["value"], given["models"]
    if not isinstance(models, tuple):
        raise error("E0208", "`each` needs a list of models", span, "no list here")
    if not isinstance(value, tuple):
        return (value,) * len(models)
    if len(value) != len(models):
        raise error(
            "E0210",
            f"a list of {len(value)} for {len(models)} model{'s' if len(models) != 1 else ''}",
            span,
            "one value a model, or one for all",
        )
    return value


def position(given: dict[str, Any], span: Span) -> Any:
    models, number = given["models"], given["number"]
    if not isinstance(models, tuple):
        raise error("E0208", "`position` needs a list of models", span, "no list here")
    total = models.total if isinstance(models, Present) else len(models)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < total:
        raise error(
            "E0209",
            f"there is no model number {number}" if isinstance(number, int) else "a model's number is needed",
            span,
            f"models are numbered 0 to {total - 1}",
        )
    numbers = models.numbers if isinstance(models, Present) else tuple(range(total))
    if number not in numbers:
        raise error("E0470", f"the model number {number} lacks a tensor", span, "asked for here")
    return numbers.index(number)


def length(given: dict[str, Any], span: Span) -> Any:
    if not isinstance(given["list"], tuple):
        raise error("E0208", f"`len` of {kind_of(given['list'])}", span, "not a list")
    return len(given["list"])


def side_by_side(given: dict[str, Any], span: Span) -> Any:
    lists = given["lists"]
    if not all(isinstance(x, tuple) for x in lists):
        raise error("E0208", "`zip` takes lists", span, "not only lists here")
    if len({len(x) for x in lists}) > 1:
        counts = " and ".join(str(len(x)) for x in lists)
        raise error("E0210", f"`zip` of lists of {counts}", span, "lengths differ")
    return tuple(zip(*lists, strict=True))


def counting(given: dict[str, Any], span: Span) -> Any:
    count = given["count"]
    if not isinstance(count, int) or not 0 <= count <= 100_000:
        raise error("E0209", "`range` takes a whole number from 0 to 100000", span, "not such a number")
    return tuple(range(count))


def curve(given: dict[str, Any], span: Span) -> Any:
    points = given["points"]
    if (
        not isinstance(points, tuple)
        or not points
        or not all(isinstance(p, int | float) and not isinstance(p, bool) for p in points)
    ):
        raise error("E0208", "`curve` takes a list of numbers", span, "not such a list")

    def value(where: Where) -> float:
        position = where.depth * (len(points) - 1)
        below = min(int(position), len(points) - 1)
        above = min(below + 1, len(points) - 1)
        share = position - below
        # rounded as mergekit does it: a density decides with int(density·n) how many elements are
        # kept
        return float((1 - share) * points[below] + share * points[above])

    return Vary(value, span, span.text)
