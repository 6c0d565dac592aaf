"""A region looked at from a place: `(a + b).layers[3]` is made of `a.layers[3]` and
`b.layers[3]`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ...grammar.diagnostic import error
from ...grammar.source import Span
from ..family.place import Path
from .terms import (
    Among,
    Apply,
    Assembly,
    At,
    Choice,
    Leaf,
    Lora,
    NumberTerm,
    Region,
    children,
    walk,
)


def at(region: Region, path: Path, span: Span) -> Region:
    """A region at a place: pushed down to explicit places, a view of the whole otherwise.

    Raises MergecError (E0454) for an adapter, which has no places without a model.
    """
    done: dict[int, Region] = {}
    placed = _over_places(region)

    def pushed(region: Region) -> Region:
        """What becomes of a region that several others are made of, worked out once."""
        if id(region) not in done:
            done[id(region)] = push(region)
        return done[id(region)]

    def push(region: Region) -> Region:
        if isinstance(region, Lora):
            raise error(
                "E0454",
                "an adapter has no places of its own",
                span,
                "part of an adapter",
                help="pick from the model that it is applied to: `(base + lora(…)).layers[3]`",
            )
        if isinstance(region, Leaf):
            inner = path if region.path is None else region.path.join(path)
            return Leaf(region.model, Path(inner.steps, span), span)
        if isinstance(region, At):
            return At(region.region, Path(region.path.join(path).steps, span), span)
        if isinstance(region, Apply) and id(region) in placed:
            args = tuple(a if isinstance(a, NumberTerm) else pushed(a) for a in region.args)
            return dataclasses.replace(region, args=args)
        if isinstance(region, Choice | Among) and id(region) in placed:
            return _pushed(region, path, span, pushed)
        return At(region, path, span)

    return pushed(region)


def _over_places(region: Region) -> set[int]:
    """Of a region and those below it, the ids of the ones that are made of a model at a place."""
    users: dict[int, list[Region]] = {}
    todo: list[Region] = []
    for term in walk(region):
        if isinstance(term, Leaf) and term.path is not None:
            todo.append(term)
        if not isinstance(term, Assembly):  # its parts have places that are its own affair
            for below in children(term):
                users.setdefault(id(below), []).append(term)
    found: set[int] = set()
    while todo:
        term = todo.pop()
        if id(term) not in found:
            found.add(id(term))
            todo.extend(users.get(id(term), ()))
    return found


def _pushed(region: Choice | Among, path: Path, span: Span, pushed: Callable[[Region], Region]) -> Region:
    """A place handed on to what a region is chosen from; `pushed` does so for a part of it."""

    def inner(part: Region) -> Region:
        return part if isinstance(part, NumberTerm) else pushed(part)

    def later(part: Region) -> Region:
        return part if isinstance(part, NumberTerm) else at(part, path, span)

    if isinstance(region, Choice):
        return dataclasses.replace(region, then=inner(region.then), other=inner(region.other))
    again = region.again
    models = tuple([inner(m) for m in region.models])
    return dataclasses.replace(
        region, full=inner(region.full), models=models, again=lambda present: later(again(present))
    )
