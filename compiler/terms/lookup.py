"""Which tensors a term looks up where a tensor of the output is made: one walk, for their names and
for their presence.

Below an explicit place, in a stack and in a model that is put together a term is asked for another
tensor than the one that is made. A tensor that the family marks optional may be absent there: a
bias that only some exporters store, or that a config turns off. A function over models (`Among`) is
then called with those that have it; elsewhere what is absent counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ...grammar.diagnostic import MergecError, error
from ...grammar.source import Span
from ..checkpoint.model import Model
from ..family.parts import renamed
from ..family.place import Path
from ..family.space import Coordinate
from .map_keys import counting
from .terms import Among, Assembly, At, Choice, Leaf, Region, Stack, Where, children, leaves, owners
from .varying import resolve

Relocation = Choice | At | Stack | Assembly
"""A term that hands the question on to one other."""


def may_lack(regions: tuple[Region, ...], known: dict[int, frozenset[str]]) -> bool:
    """Whether an optional tensor may be in some of these regions alone. `known` keeps what was
    found for a model."""
    found = {_optional(leaf.model, known) for region in regions for leaf in leaves(region)}
    return len(found) > 1


def _optional(model: Model, known: dict[int, frozenset[str]]) -> frozenset[str]:
    """The optional tensors that a model has."""
    if model.number not in known:
        known[model.number] = frozenset(n for n in model.space.names if model.family.is_optional(n))
    return known[model.number]


def exists(term: Region, where: Where) -> bool:
    """Whether a region has a tensor at a place: one at least of those that it looks up, if it looks
    up any.

    Of a function those models count that it is called with, whatever else it takes. Raises
    MergecError as `name_in` and `relocated` do.
    """
    empty = True
    for found in lookups(term, where, lambda part: part.models if isinstance(part, Among) else children(part)):
        if found is not None:
            return True
        empty = False
    return empty


def lookups(
    term: Region, where: Where, below: Callable[[Region], Sequence[Region]] = children
) -> Iterator[tuple[Model, str] | None]:
    """The models that a term asks at a place, each with its name for the tensor; None where an
    optional one is absent.

    `below` says what a term that is asked where it stands is made of.
    """
    seen: set[tuple[int, Where]] = set()
    todo: list[tuple[Region, Where]] = [(term, where)]
    while todo:
        term, where = todo.pop()
        if (id(term), where) in seen:
            continue
        seen.add((id(term), where))
        if isinstance(term, Leaf):
            name = name_in(term, where)
            yield None if name is None else (term.model, name)
        elif isinstance(term, Choice | At | Stack | Assembly):
            found = relocated(term, where)
            if found is None:
                yield None
            else:
                todo.append(found)
        else:
            todo.extend([(part, where) for part in reversed(below(term))])


def name_in(leaf: Leaf, where: Where) -> str | None:
    """The canonical name of what a model is asked for; None where it lacks an optional tensor
    there.

    Raises MergecError as `corresponding` does.
    """
    if leaf.path is not None:
        return corresponding(leaf, leaf.path, leaf.span, where)
    name = renamed(where.name, where.space.family, leaf.model.family)
    absent = leaf.model.family.is_optional(name) and leaf.model.find(name) is None
    return None if absent else name


def corresponding(owner: Leaf | Assembly, path: Path, span: Span, where: Where) -> str | None:
    """The name under an explicit place that corresponds to the left-hand place's coordinate; None
    where an optional tensor is absent.

    Raises MergecError: E0305, E0306, and what resolving the place does.
    """
    selection = owner.space.select(path)
    if path.text == "text":
        # a part that is a model of its own may be called otherwise in the output
        same = renamed(where.name, where.space.family, owner.space.family)
        if same in selection.names and (same != where.name or owner.space.family is not where.space.family):
            return same
    if selection.counts != where.counts:
        left = " x ".join(str(c) for c in where.counts) or "1"
        right = " x ".join(str(c) for c in selection.counts) or "1"
        raise error(
            "E0305",
            f"{right} on the right can't be matched with {left} on the left",
            span,
            f"selects {right}",
            notes="explicit layers are matched in order, so the counts must agree",
        )
    name, rest = selection.by_coordinate.get(where.coordinate), where.coordinate[1]
    # of what is a tensor on the left and a module on the right, none is absent: they don't
    # correspond
    fits = rest or any(not other for _, other in selection.by_coordinate)
    if name is not None or (fits and owner.model.family.is_optional(where.name)):
        return name
    raise error(
        "E0306",
        f"`{path.text}` of `{owner.label}` has nothing that corresponds to `{where.name}`",
        span,
        f"no `{rest}` here" if rest else "a different part",
    )


def relocated(term: Relocation, where: Where) -> tuple[Region, Where] | None:
    """The region that a term hands the question on to, and where that is to be asked; None where an
    optional tensor is absent. Raises MergecError (E0305, E0306)."""
    if isinstance(term, Choice):
        return (term.then if resolve(term.condition, where) else term.other), where
    if isinstance(term, Stack):
        return _stacked(term, where)
    return _assembled(term, where) if isinstance(term, Assembly) else _placed(term, where)


def _stacked(term: Stack, where: Where) -> tuple[Region, Where]:
    position, rest = where.coordinate
    total = sum(term.counts)
    if len(position) != (total != 1) or (where.counts and where.counts[0] != total):
        raise error(
            "E0305",
            f"a stack of {total} layers is given to {where.counts[0] if where.counts else 1}",
            term.span,
            f"{total} layers",
            help="`stack` is the value of a whole stack of layers: `layers = stack(…)`",
        )
    layer = position[0] if position else 0
    for part, count in zip(term.parts, term.counts, strict=True):
        if layer < count:
            one = count == 1
            return part, where.at(coordinate=(() if one else (layer,), rest), counts=() if one else (count,))
        layer -= count
    raise AssertionError("a layer past the end of its stack")


def _assembled(term: Assembly, where: Where) -> tuple[Region, Where] | None:
    """A tensor of a model that is put together: its numbers vary over its own layers."""
    found = _part_at(term, where.name)
    if found is not None:
        value, coordinate, counts = found
        return value, where.at(coordinate=coordinate, counts=counts, space=term.space)
    if term.model.family.is_optional(where.name) and where.name not in term.space.names:
        return None
    message = f"no part of this model gives `{where.name}` a value"
    raise error("E0306", message, term.span, "put together")


def _part_at(assembly: Assembly, name: str) -> tuple[Region, Coordinate, tuple[int, ...]] | None:
    """What gives the tensor its value, and the tensor's coordinate under that part's place; None
    where nothing does."""
    space = assembly.space
    found = counting(assembly.parts, name, space)
    if found is None:
        return None
    path, _, value = found
    selection = space.find(path) if path is not None else None
    # a role is looked for in every stack
    return (value, selection.names[name], selection.counts) if selection is not None else (value, ((), name), ())


def _placed(term: At, where: Where) -> tuple[Region, Where] | None:
    """The region's own tensor at the place, its numbers varying over its own layers: of the first
    of its models, or of the first that has an optional one."""
    every = owners(term.region)
    if not every:
        return term.region, where
    fault = None
    for owner in every if every[0].model.family.is_optional(where.name) else every[:1]:
        try:
            name = corresponding(owner, term.path, term.span, where)
        except MergecError as error:
            fault = error if owner is every[0] else fault
            continue
        if name is not None:
            return term.region, where.at(coordinate=((), name), name=name, space=owner.space)
    if fault is not None:
        raise fault
    return None
