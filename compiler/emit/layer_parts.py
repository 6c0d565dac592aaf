"""What each layer of the output is made of, and whether that is of one kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...grammar.records import dataclass
from ..checkpoint.model import Model
from ..elaborate.elaborate import Elaboration
from ..family.family import Family, LayerStack
from ..graph.graph import below

_ATTENTION = "_attention"

Origin = tuple[Model, int]
Parts = Mapping[str, Sequence[Origin]]
"""The layers that each tensor of a layer is read from, by its name below the layer."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """A layer that is made of layers of two kinds: `one` is what it passes for, `other` is too.
    `apart`: whole tensors are of either, from layers of different numbers."""

    one: Origin
    other: Origin
    apart: bool


def layer_parts(elaboration: Elaboration, stack: LayerStack) -> dict[int, Parts]:
    """The parts of each layer of a stack of the output."""
    layers: dict[tuple[int, str, int], Origin] = {}
    for model in elaboration.models:
        for name, view in model.tensors.items():
            at = model.space.layer_of(name)
            if at is not None:
                layers[model.number, view.stored, view.first] = model, at[1]
    found: dict[int, dict[str, list[Origin]]] = {}
    for output in elaboration.graph.outputs:
        at = elaboration.space.layer_of(output.name)
        if at is None or at[0].name != stack.name:
            continue
        if output.equivalence is None:
            places = [node.attribute("range") for node in below([output.node]) if node.op == "source"]
            read = [(place.model, place.stored, place.first) for place in places]
        else:
            pairs = zip(output.equivalence.sources, output.reads, strict=True)
            read = [(source.model, view.stored, view.first) for source, view in pairs]
        origins = [layers[each] for each in read if each in layers]
        if origins:
            found.setdefault(at[1], {})[at[2]] = list({(m.number, i): (m, i) for m, i in origins}.values())
    return dict(found)


def about(family: Family, stack: LayerStack, parts: Parts, values: Sequence[Any]) -> Parts:
    """The parts that a fact is about: attention's, where all its values are kinds of that; else the
    whole layer."""
    paths = family.roles_of(stack.name).get("attn", ())
    if not all(isinstance(value, str) and value.endswith(_ATTENTION) for value in values):
        return parts
    own = {rest: origins for rest, origins in parts.items() if any(rest.startswith(f"{path}.") for path in paths)}
    return own or parts


def settled(
    parts: Parts, layer: int, given: Origin | None, value: Callable[[Origin], Any]
) -> tuple[Origin | None, Mixed | None]:
    """Which origin says what a layer of the output is, and where another says otherwise.

    `given` is where most of the layer comes from, or the template's own layer where models are
    taken whole. `value` is what an origin says, None where it says nothing.
    """
    every = list({(m.number, i): (m, i) for origins in parts.values() for m, i in origins}.values())
    keys = [{(m.number, i) for m, i in origins} for origins in parts.values()]
    common = set.intersection(*keys) if keys else set()
    one = given
    moved = any(i != layer for _, i in every)
    if given is None or ((moved or given[1] != layer) and (given[0].number, given[1]) not in common):
        one = next((origin for origin in every if (origin[0].number, origin[1]) in common), given or every[0])
    said = None if one is None else value(one)
    if one is None or said is None:
        return one, None
    for origin in every:
        other = value(origin)
        if other is not None and other != said:
            at = origin[0].number, origin[1]
            apart = moved and any(at in key and (one[0].number, one[1]) not in key for key in keys)
            return one, Mixed(one, origin, apart)
    return one, None
