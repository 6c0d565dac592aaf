"""Where each comment of a file belongs, so that the formatter can write it back.

A comment belongs to the innermost thing that holds others on lines of their own (the file, a block,
a bracketed list) and there to one of the things held: above it, or after it on its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field

from ...grammar import ast
from ...grammar.records import dataclass
from ...grammar.source import Span


@dataclass(slots=True)
class Slots:
    """The comments of one holder: `above[i]` and `after[i]` by the index of the thing held, `last`
    below them all.

    `inside[i]` says how many of `above[i]` were found within the thing and have been moved up.
    """

    above: dict[int, list[ast.Comment]] = field(default_factory=dict)
    after: dict[int, ast.Comment] = field(default_factory=dict)
    last: list[ast.Comment] = field(default_factory=list)
    inside: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Holder:
    node: object
    start: int
    end: int
    held: tuple[Span, ...]


def place_comments(module: ast.Module) -> dict[int, Slots]:
    """The slots of every node that holds comments, by the node's `id`; every comment is in exactly
    one slot."""
    slots: dict[int, Slots] = {}
    if not module.comments:
        return slots
    holders = sorted(_holders(module), key=lambda each: (each.start, -each.end))
    open_holders: list[_Holder] = []
    comments: dict[int, tuple[_Holder, list[ast.Comment]]] = {}
    upcoming = 0
    for comment in sorted(module.comments, key=lambda each: each.span.start):
        while upcoming < len(holders) and holders[upcoming].start <= comment.span.start:
            _close(open_holders, holders[upcoming].start)
            open_holders.append(holders[upcoming])
            upcoming += 1
        _close(open_holders, comment.span.start)
        holder = open_holders[-1]
        comments.setdefault(id(holder.node), (holder, []))[1].append(comment)
    for key, (holder, members) in comments.items():
        slots[key] = _sort_in(holder, members)
    return slots


def _close(open_holders: list[_Holder], offset: int) -> None:
    while len(open_holders) > 1 and open_holders[-1].end <= offset:
        open_holders.pop()


def _sort_in(holder: _Holder, comments: Sequence[ast.Comment]) -> Slots:
    slots = Slots()
    index = 0  # of the first thing that ends after the comment
    for comment in comments:
        while index < len(holder.held) and holder.held[index].end <= comment.span.start:
            index += 1
        inside = index < len(holder.held) and holder.held[index].start < comment.span.start
        if not inside and index > 0 and index - 1 not in slots.after and _same_line(holder.held[index - 1], comment):
            slots.after[index - 1] = comment
        elif index < len(holder.held):
            slots.above.setdefault(index, []).append(comment)
            slots.inside[index] = slots.inside.get(index, 0) + inside
        else:
            slots.last.append(comment)
    return slots


def _same_line(span: Span, comment: ast.Comment) -> bool:
    """Whether a comment stands on the last line of a thing, or of the parentheses around it, which
    spans leave out."""
    between = span.source.text[span.end : comment.span.start]
    return "\n" not in between or ")" in between[between.rindex("\n") :]


def _holders(module: ast.Module) -> Iterator[_Holder]:
    yield _Holder(module, -1, len(module.source.text) + 1, tuple(each.span for each in module.statements))
    pending: list[object] = list(module.statements)
    while pending:
        node = pending.pop()
        match node:
            case ast.Call():
                held = tuple(each.span for each in node.arguments)
                yield _Holder(node, node.function.span.end, node.span.end, held)
            case ast.OutputStatement():
                yield _Holder(node, node.keyword.end, node.span.end, tuple(each.span for each in node.arguments))
            case ast.ListExpr():
                yield _Holder(node, node.span.start, node.span.end, tuple(each.span for each in node.items))
            case ast.MapExpr():
                yield _Holder(node, node.span.start, node.span.end, tuple(each.span for each in node.entries))
            case ast.Def():
                held = tuple(each.span for each in node.parameters)
                yield _Holder(node, node.name.span.end, node.body.span.start, held)
            case ast.Block() if node.braces:
                held = (*(each.span for each in node.statements), node.result.span)
                yield _Holder(node, node.span.start, node.span.end, held)
        pending.extend(children(node))


def children(node: object) -> Iterator[object]:
    """The nodes directly below a node of the syntax tree."""
    for name in getattr(type(node), "__slots__", ()):
        value = getattr(node, name)
        if isinstance(value, tuple):
            yield from value
        elif not isinstance(value, Span | str | int | float | bool | None):
            yield value
