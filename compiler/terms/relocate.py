"""From the place that is being made to the places that a term names: where its tensors are looked for instead."""

from __future__ import annotations

from ...grammar.diagnostic import Diagnostic, Label, MergecError
from ...grammar.source import Span
from ..family.place import Path
from ..family.space import Selection, Space
from .assembly import part_at
from .terms import Assembly, At, Leaf, Region, Stack, Where, owners


def mapped_name(owner: Leaf | Assembly, path: Path, span: Span, where: Where) -> str:
    """The name under an explicit place that corresponds to the left-hand place's coordinate.

    Raises MergecError (E0305, E0306).
    """
    selection = owner.space.select(path)
    name = matching(selection, where)
    if name is not None:
        return name
    if selection.counts != where.counts:
        left = " x ".join(str(c) for c in where.counts) or "1"
        right = " x ".join(str(c) for c in selection.counts) or "1"
        raise MergecError(
            Diagnostic(
                "E0305",
                f"{right} on the right can't be matched with {left} on the left",
                (Label(span, f"selects {right}"),),
                notes=("explicit layers are matched in order, so the counts must agree",),
            )
        )
    raise MergecError(
        Diagnostic(
            "E0306",
            f"`{path.text}` of `{owner.label}` has nothing that corresponds to `{where.name}`",
            (Label(span, f"no `{where.coordinate[1]}` here" if where.coordinate[1] else "a different part"),),
        )
    )


def optional_at(term: At, where: Where) -> tuple[Leaf | Assembly, str] | None:
    """Of the models that a region is made of, the first that has the optional tensor at a place, and its name there."""
    for owner in owners(term.region):
        try:
            name = matching(owner.space.select(term.path), where)
        except MergecError:
            continue  # a place that this one lacks; of the first it is an error where it is asked for what all have
        if name is not None:
            return owner, name
    return None


def matching(selection: Selection, where: Where) -> str | None:
    """The name under an explicit place that corresponds to the output's tensor; None where nothing does."""
    return selection.by_coordinate.get(where.coordinate) if selection.counts == where.counts else None


def moved(term: At | Stack | Assembly, where: Where) -> tuple[Region, Where]:
    """The region that a change of place comes to, and where it is to be asked. Raises MergecError."""
    if isinstance(term, Stack):
        return _stacked(term, where)
    return _assembled(term, where) if isinstance(term, Assembly) else _placed(term, where)


def _stacked(term: Stack, where: Where) -> tuple[Region, Where]:
    position, rest = where.coordinate
    total = sum(term.counts)
    if len(position) != (total != 1) or (where.counts and where.counts[0] != total):
        raise MergecError(
            Diagnostic(
                "E0305",
                f"a stack of {total} layers is given to {where.counts[0] if where.counts else 1}",
                (Label(term.span, f"{total} layers"),),
                help=("`stack` is the value of a whole stack of layers: `layers = stack(…)`",),
            )
        )
    layer = position[0] if position else 0
    for part, count in zip(term.parts, term.counts, strict=True):
        if layer < count:
            coordinate = ((layer,) if count != 1 else (), rest)
            counts = (count,) if count != 1 else ()
            inner = Where(where.name, coordinate, counts, where.space, where.layer, where.layers, where.output)
            return part, inner
        layer -= count
    raise AssertionError("a layer past the end of its stack")


def _assembled(term: Assembly, where: Where) -> tuple[Region, Where]:
    """A tensor of a model that is put together: its numbers vary over its own layers."""
    found = part_at(term, where.name)
    if found is None:
        raise MergecError(
            Diagnostic(
                "E0306", f"no part of this model gives `{where.name}` a value", (Label(term.span, "put together"),)
            )
        )
    value, coordinate, counts = found
    layer, layers = _layer(term.space, where.name)
    return value, Where(where.name, coordinate, counts, term.space, layer, layers, where.output)


def _placed(term: At, where: Where) -> tuple[Region, Where]:
    """The region's own tensor at the place: its numbers vary over its own layers."""
    owner = next(iter(owners(term.region)), None)
    if owner is None:
        return term.region, where
    found = optional_at(term, where) if owner.model.family.is_optional(where.name) else None
    owner, name = found or (owner, mapped_name(owner, term.path, term.span, where))
    layer, layers = _layer(owner.space, name)
    return term.region, Where(name, ((), name), (), owner.space, layer, layers, where.output)


def _layer(space: Space, name: str) -> tuple[int | None, int]:
    """A tensor's layer, None outside the layers, and the depth of its stack."""
    at = space.layer_of(name)
    return at[1] if at else None, space.depths.get(at[0].name, 0) if at else max(space.depths.values(), default=0)
