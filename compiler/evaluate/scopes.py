"""Names and what they stand for: scopes, and the defs and libraries that have one of their own."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from ...grammar import ast
from ...grammar.records import dataclass
from ...grammar.source import Span


@dataclass(slots=True, eq=False)
class Scope:
    """Names to values, inside an outer scope."""

    values: dict[str, Any]
    outer: Scope | None = None
    spans: dict[str, Span] = field(default_factory=dict)

    def find(self, name: str) -> tuple[bool, Any]:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return True, scope.values[name]
            scope = scope.outer
        return False, None

    def span_of(self, name: str) -> Span | None:
        """Where the argument of a parameter stands in the recipe."""
        return self.spans.get(name) or (self.outer.span_of(name) if self.outer else None)


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A `def` with the scope that it was written in. `library`: not of the recipe itself."""

    definition: ast.Def
    scope: Scope
    library: bool

    @property
    def name(self) -> str:
        return self.definition.name.id


@dataclass(frozen=True, slots=True, eq=False)
class Namespace:
    """`use "lib.mrg" as ns`."""

    scope: Scope
    name: str


@dataclass(frozen=True, slots=True)
class Poison:
    """The value of a name whose own statement is wrong; using it adds no second error."""
