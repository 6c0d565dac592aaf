"""Numbers that vary over the output: what they are at one tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...grammar.diagnostic import error
from ...grammar.source import Span
from .map_keys import counting
from .terms import PlaceMap, Vary, Where


def varies(value: Any) -> bool:
    """Whether a value is a number that is known only at a tensor."""
    return isinstance(value, Vary | PlaceMap)


def resolve(value: Any, where: Where) -> Any:
    """The plain number (or boolean, string, none) that a value is at a tensor."""
    if isinstance(value, Vary):
        return value.at(where)
    if isinstance(value, PlaceMap):
        return resolve_map(value, where)
    return value


def resolve_map(mapping: PlaceMap, where: Where) -> Any:
    """The value of the key that counts for the tensor. Raises MergecError (E0314) where none covers
    it."""
    found = counting(mapping.entries, where.name, where.space)
    if found is None:
        raise error(
            "E0314",
            f"this place map has no value for `{where.name}`",
            mapping.span,
            "no key covers it",
            help="add a default: `_: 1`",
        )
    return resolve(found[2], where)


def once(compute: Callable[[Where], Any], span: Span, text: str) -> Vary:
    """A varying number that is worked out once per tensor, however often it is named in others."""
    last: list[tuple[Where, Any]] = []

    def value(where: Where) -> Any:
        if not last or last[0][0] is not where:
            last[:] = [(where, compute(where))]
        return last[0][1]

    return Vary(value, span, text)
