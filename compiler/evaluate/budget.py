"""What evaluating a recipe may cost: evaluation always ends, and this sees to it that it ends soon.

Without loops and recursion a recipe can still double something in every line. So evaluation counts
its steps, and knows the size that a list or place map would have if it were written out: one that
names another twice is small in memory, and yet comparing or copying it takes as long as its
written-out form.
"""

from __future__ import annotations

from typing import Any

from ...grammar.diagnostic import MergecError, error
from ...grammar.source import Span
from ..terms.terms import PlaceMap

MAX_CALLS = 100_000
"""Calls of defs and comprehension elements in one recipe; more is a runaway expansion, not a
merge."""

MAX_STEPS = 2_000_000
"""Subexpressions evaluated, and elements of lists and place maps made or handed over, in one
recipe."""

MAX_ELEMENTS = 200_000
"""Elements of one list or place map, those of the lists inside included."""

MAX_NESTING = 100
"""How deep lists and place maps may lie inside each other."""


class Budget:
    """The cost of one recipe so far. Raises MergecError (E0211, E0219) where it gets out of
    hand."""

    def __init__(self) -> None:
        self._calls = self._steps = 0
        # with the container itself, so that its id stays its own
        self._measured: dict[int, tuple[Any, int, int]] = {}

    @property
    def spent(self) -> bool:
        """Whether there is no use in evaluating anything more."""
        return self._calls > MAX_CALLS or self._steps > MAX_STEPS

    def call(self, span: Span) -> None:
        """Counts a call of a def, or an element of a comprehension."""
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise _too_much(f"the recipe expands to more than {MAX_CALLS} calls", span)

    def step(self, span: Span, steps: int = 1) -> None:
        """Counts steps of evaluation."""
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise _too_much(f"the recipe takes more than {MAX_STEPS} steps to evaluate", span)

    def made(self, value: tuple[Any, ...] | PlaceMap, span: Span) -> None:
        """Measures a list or place map when it is first seen."""
        if id(value) not in self._measured:
            self._measure(value, span)

    def handed(self, value: tuple[Any, ...] | PlaceMap, span: Span) -> None:
        """Counts a list or place map that is compared, or handed to a function: all of it is looked
        through."""
        self.made(value, span)
        self.step(span, self._measured[id(value)][1])

    def _measure(self, value: tuple[Any, ...] | PlaceMap, span: Span) -> tuple[int, int]:
        known = self._measured.get(id(value))
        if known is not None:
            return known[1], known[2]
        items = value if isinstance(value, tuple) else tuple([entry[2] for entry in value.entries])
        self.step(span, len(items))
        size, depth = len(items), 0
        for item in items:
            if isinstance(item, tuple | PlaceMap):
                inner_size, inner_depth = self._measure(item, span)
                size, depth = size + inner_size, max(depth, inner_depth)
        if size > MAX_ELEMENTS:
            raise _too_much(f"this list has more than {MAX_ELEMENTS} elements", span)
        if depth >= MAX_NESTING:
            raise error("E0211", f"lists are nested more than {MAX_NESTING} deep here", span, "too deep")
        self._measured[id(value)] = (value, size, depth + 1)
        return size, depth + 1


def _too_much(message: str, span: Span) -> MergecError:
    return error("E0219", message, span)
