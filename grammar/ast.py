"""The syntax tree: frozen dataclasses, each with the span it was read from.

Places (left of `=`, after a model's name, and as keys of place maps) are ordinary expressions
restricted to `Star`, `String`, `Name`, `Member` and `Index`; what they cover is decided when the
checkpoints are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .records import dataclass
from .source import Source, Span

# --- expressions ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number:
    value: int | float
    span: Span


@dataclass(frozen=True, slots=True)
class String:
    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class Boolean:
    value: bool
    span: Span


@dataclass(frozen=True, slots=True)
class NoneLiteral:
    span: Span


@dataclass(frozen=True, slots=True)
class Name:
    id: str
    span: Span


@dataclass(frozen=True, slots=True)
class Star:
    """`*` as a place: the whole output."""

    span: Span


@dataclass(frozen=True, slots=True)
class ListExpr:
    items: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class MapEntry:
    """`key: value` of a place map; the key is a place, or `Name("_")` for the default."""

    key: Expr
    value: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class MapExpr:
    entries: tuple[MapEntry, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call: positional (`name` is None), keyword, or `*splat`."""

    name: str | None
    splat: bool
    value: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Call:
    function: Expr
    arguments: tuple[Argument, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Unary:
    """`op` is `-`, `+` or `not`."""

    op: str
    operand: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Binary:
    """`op` is one of `+ - * / ** < <= > >= == != and or`."""

    op: str
    left: Expr
    right: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Conditional:
    """`then if condition else other`."""

    condition: Expr
    then: Expr
    other: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Comprehension:
    """`[element for targets in iterable]`."""

    element: Expr
    targets: tuple[Name, ...]
    iterable: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Member:
    """`object.name`; with `glob` the name was written as a string: `a."*.bias"`."""

    object: Expr
    name: str
    glob: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Item:
    """A single index."""

    value: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Range:
    """`start..stop by step`, both ends included; each part may be missing."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None
    span: Span


@dataclass(frozen=True, slots=True)
class All:
    """`*` as an index."""

    span: Span


Selector = Item | Range | All


@dataclass(frozen=True, slots=True)
class Index:
    object: Expr
    selectors: tuple[Selector, ...]
    span: Span


Expr = (
    Number
    | String
    | Boolean
    | NoneLiteral
    | Name
    | Star
    | ListExpr
    | MapExpr
    | Call
    | Unary
    | Binary
    | Conditional
    | Comprehension
    | Member
    | Index
)

# --- statements ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Let:
    name: Name
    value: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class Expect:
    """`expect condition, "message"`; the message may be missing."""

    condition: Expr
    message: String | None
    span: Span


@dataclass(frozen=True, slots=True)
class Kind:
    """What a parameter accepts: `number`, `number(0..1)`, `integer`, `boolean`, `string`, `region`.

    `low` and `high` are inclusive bounds; None is unbounded.
    """

    name: str
    low: float | None
    high: float | None
    span: Span


@dataclass(frozen=True, slots=True)
class ParameterDeclaration:
    """`name`, `name: kind`, `name=default`, `name: kind = default`, or `*name`."""

    name: Name
    kind: Kind | None
    default: Expr | None
    variadic: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Block:
    """The body of a def: lets and expects, then the value. `braces`: written as `{ … }`."""

    statements: tuple[Let | Expect, ...]
    result: Expr
    braces: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Def:
    name: Name
    parameters: tuple[ParameterDeclaration, ...]
    body: Block
    span: Span


@dataclass(frozen=True, slots=True)
class Use:
    path: String
    alias: Name | None
    span: Span


@dataclass(frozen=True, slots=True)
class OutputStatement:
    """`output(key=value, …)`; `keyword` is the span of the word `output`."""

    arguments: tuple[Argument, ...]
    keyword: Span
    span: Span


@dataclass(frozen=True, slots=True)
class Assign:
    place: Expr
    value: Expr
    span: Span


Statement = Let | Def | Use | OutputStatement | Assign | Expect


@dataclass(frozen=True, slots=True)
class Comment:
    """A `#` comment to the end of its line; `text` includes the `#`."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Module:
    """One recipe or library file."""

    source: Source
    statements: tuple[Statement, ...]
    comments: tuple[Comment, ...]


def below(node: object) -> Iterator[Any]:
    """What stands one step below a node, or in a tuple of nodes, in the order of the text; nothing
    below anything else."""
    if isinstance(node, tuple):
        yield from node
    elif hasattr(node, "__dataclass_fields__") and not isinstance(node, Span):
        yield from (getattr(node, name) for name in node.__dataclass_fields__ if name != "span")
