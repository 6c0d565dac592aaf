"""From the place that is being made to the places that a term names: where its tensors are looked for instead."""

from __future__ import annotations

from ..grammar.diagnostic import Diagnostic, Label, MergecError
from .places import Path
from .terms import At, Leaf, Region, Stack, Where, leaves


def mapped_name(term: Leaf, path: Path, where: Where) -> str:
    """The name under an explicit place that corresponds to the left-hand place's coordinate.

    Raises MergecError (E0305, E0306).
    """
    selection = term.model.space.select(path)
    name = selection.by_coordinate.get(where.coordinate)
    if name is not None and selection.counts == where.counts:
        return name
    if selection.counts != where.counts:
        left = " x ".join(str(c) for c in where.counts) or "1"
        right = " x ".join(str(c) for c in selection.counts) or "1"
        raise MergecError(
            Diagnostic(
                "E0305",
                f"{right} on the right can't be matched with {left} on the left",
                (Label(term.span, f"selects {right}"),),
                notes=("explicit layers are matched in order, so the counts must agree",),
            )
        )
    raise MergecError(
        Diagnostic(
            "E0306",
            f"`{path.text}` of `{term.model.label}` has nothing that corresponds to `{where.name}`",
            (Label(term.span, f"no `{where.coordinate[1]}` here" if where.coordinate[1] else "a different part"),),
        )
    )


def moved(term: At | Stack, where: Where) -> tuple[Region, Where]:
    """The region that a change of place comes to, and where it is to be asked. Raises MergecError."""
    return _stacked(term, where) if isinstance(term, Stack) else _placed(term, where)


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


def _placed(term: At, where: Where) -> tuple[Region, Where]:
    """The region's own tensor at the place: its numbers vary over its own layers."""
    leaf = next(iter(leaves(term.region)), None)
    if leaf is None:
        return term.region, where
    space = leaf.model.space
    name = mapped_name(Leaf(leaf.model, term.path, term.span), term.path, where)
    at = space.layer_of(name)
    layers = space.depths.get(at[0].name, 0) if at else max(space.depths.values(), default=0)
    return term.region, Where(name, ((), name), (), space, at[1] if at else None, layers, where.output)
