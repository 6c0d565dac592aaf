"""A model put together from parts: a place map whose values are regions.

It is a virtual model with layers of its own: as many as the `stack(…)` that it gives to a stack, else as many as the
model that everything else comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...grammar.diagnostic import Diagnostic, Label, MergecError
from ...grammar.source import Span
from ..family.space import Coordinate, Space
from .lifting import as_region
from .map_keys import Entry, counting
from .terms import (
    Assembly,
    Leaf,
    Origins,
    Region,
    Stack,
    before_layers,
    is_region,
    owners,
    picks,
)


def assemble(entries: Sequence[Entry], span: Span) -> Assembly:
    """The model of a place map. Raises MergecError: E0208 for a value that is no region, E0301 for an unknown place."""
    parts = tuple((path, key, as_region(value, span)) for path, key, value in entries)
    rest = [value for path, _, value in parts if path is None or not path.steps]
    found = [o for value in (*rest, *(v for _, _, v in parts)) for o in owners(value)]
    first = next((o for o in found if not isinstance(o, Leaf) or o.path is None), None)
    if first is None:
        raise MergecError(
            Diagnostic(
                "E0208",
                "these parts make no model: none of them is a whole one",
                (Label(span, "from which model is the rest?"),),
                help=("name it: `{layers: stack(…), _: base}`",),
            )
        )
    model = first.model
    origins: dict[str, Origins] = {}
    for stack in model.family.stacks:
        given = next((v for p, _, v in parts if p and p.text in (stack.name, f"{stack.name}[*]")), None)
        if isinstance(given, Stack):
            origins[stack.name] = stack_origins(given)
        elif stack.name in first.space.depths:
            have = first.origins.get(stack.name) if isinstance(first, Assembly) else None
            origins[stack.name] = have or [(model, j) for j in range(first.space.depths[stack.name])]
    depths = {name: len(layers) for name, layers in origins.items()}
    space = Space(model.family, output_names(first.space, depths, origins), depths, "the model that is put together")
    for path, _, _ in parts:
        if path is not None:
            space.part(path)
    return Assembly(parts, model, space, origins, span)


def is_assembly(entries: Sequence[Entry]) -> bool:
    """Whether a map is a model and not a number that varies."""
    return any(is_region(value) for _, _, value in entries)


def part_at(assembly: Assembly, name: str) -> tuple[Region, Coordinate, tuple[int, ...]] | None:
    """What gives the tensor its value, and the tensor's coordinate under that part's place; None where nothing does."""
    space = assembly.space
    found = counting(assembly.parts, name, space)
    if found is None:
        return None
    path, _, value = found
    if path is not None:
        try:
            selection = space.select(path)
        except MergecError:
            return value, ((), name), ()  # a role, which is looked for in every stack
        return value, selection.names[name], selection.counts
    return value, ((), name), ()


def stack_origins(stack: Stack) -> Origins:
    """The model and layer that each layer of a `stack(…)` is picked from."""
    out: Origins = []
    for part in stack.parts:
        owner, path = picks(part)[0][0]
        selection = owner.space.select(path)
        if isinstance(owner, Assembly):
            known = owner.origins.get(selection.stack or "", [])
            out.extend(known[i] for i in selection.indices)
        else:
            out.extend((owner, i) for i in selection.indices)
    return out


def output_names(space: Space, depth: Mapping[str, int], origins: Mapping[str, Origins]) -> tuple[str, ...]:
    """Canonical names: those of `space`, its layers cut or repeated to a depth, and named as where they come from."""
    before: list[str] = []
    after: list[str] = []
    for name in space.names:
        if space.layer_of(name) is None:
            (before if before_layers(space, name) else after).append(name)
    out = before
    for stack in space.family.stacks:
        layers = below_layers(space, stack.name)
        if not layers:
            continue
        below: dict[int, dict[int, list[str]]] = {}
        known = origins.get(stack.name)
        for j in range(depth[stack.name]):
            rests = _layer(layers, j)
            if known is not None and j < len(known):
                model, i = known[j]
                if model.number not in below:
                    below[model.number] = below_layers(model.space, stack.name)
                rests = _layer(below[model.number] or layers, i)
            out.extend(f"{stack.head}{j}.{rest}" for rest in rests)
    return (*out, *after)


def _layer(layers: Mapping[int, list[str]], number: int) -> list[str]:
    """The names below a layer; beyond the last one its names. Between others a number may have none."""
    last = max(layers)
    return layers.get(number, []) if number <= last else layers[last]


def below_layers(space: Space, stack: str) -> dict[int, list[str]]:
    """Layer number to the names below that layer, for one stack."""
    out: dict[int, list[str]] = {}
    for name in space.names:
        at = space.layer_of(name)
        if at is not None and at[0].name == stack:
            out.setdefault(at[1], []).append(at[2])
    return out
