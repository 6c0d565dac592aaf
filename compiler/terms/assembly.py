"""A model put together from parts: a place map whose values are regions.

It is a virtual model with layers of its own: as many as the `stack(…)` that it gives to a stack,
else as many as the model that everything else comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ...grammar.diagnostic import MergecError, error
from ...grammar.source import Span
from ..family.space import Space
from .lifting import as_region
from .lookup import exists
from .map_keys import Entry
from .terms import (
    Assembly,
    Leaf,
    Origins,
    Region,
    Stack,
    Where,
    before_layers,
    is_region,
    models_in,
    owners,
    picks,
)


def assemble(entries: Sequence[Entry], span: Span) -> Assembly:
    """The model of a place map. Raises MergecError: E0208 for a value that is no region, E0301 for
    an unknown place."""
    parts = tuple((path, key, as_region(value, span)) for path, key, value in entries)
    rest = [value for path, _, value in parts if path is None or not path.steps]
    found = [o for value in (*rest, *(v for _, _, v in parts)) for o in owners(value)]
    first = next((o for o in found if not isinstance(o, Leaf) or o.path is None), None)
    if first is None:
        raise error(
            "E0208",
            "these parts make no model: none of them is a whole one",
            span,
            "from which model is the rest?",
            help="name it: `{layers: stack(…), _: base}`",
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

    def has(name: str, wider: Space) -> bool:
        return exists(Assembly(parts, model, wider, origins, span), Where(name, ((), name), (), wider, name))

    space = with_optional(space, [value for _, _, value in parts], has)
    for path, _, _ in parts:
        if path is not None:
            space.part(path)
    return Assembly(parts, model, space, origins, span)


def is_assembly(entries: Sequence[Entry]) -> bool:
    """Whether a map is a model and not a number that varies."""
    return any(is_region(value) for _, _, value in entries)


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
    """Canonical names: those of `space`, its layers cut or repeated to a depth, and named as where
    they come from."""
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
                    # a layer of another architecture is none of this one, and has to be named as it
                    alike = model.family.name == space.family.name
                    below[model.number] = below_layers(model.space, stack.name) if alike else {}
                rests = _layer(below[model.number], i) if below[model.number] else _layer(layers, j)
            out.extend(f"{stack.head}{j}.{rest}" for rest in rests)
    return (*out, *after)


def with_optional(space: Space, values: Iterable[Region], has: Callable[[str, Space], bool]) -> Space:
    """A space with the optional tensors that some of the models below `values` have besides, if
    their value does.

    `has` tells this of a name, given a space of all that may be; where it raises MergecError,
    making the tensor will.
    """
    heads = {stack.name: stack.head for stack in space.family.stacks}
    position = {name: k for k, name in enumerate(space.names)}
    ends = {at[:2]: k for name, k in position.items() if (at := space.layer_of(name))}
    models = {model.number: model for value in values for model in models_in(value)}
    found: dict[str, None] = {}
    for stack, rest in dict.fromkeys(m.space.slot(n) for m in models.values() for n in m.space.names):
        head, depth = heads.get(stack, ""), space.depths.get(stack, 0)
        if space.family.is_optional(f"{head}0.{rest}" if stack else rest):
            every = [f"{head}{j}.{rest}" for j in range(depth)] if stack else [rest]
            found.update(dict.fromkeys(name for name in every if name not in position))
    wider = space.over((*space.names, *found), space.depths, space.owner, space.stored)

    def there(name: str) -> bool:
        try:
            return has(name, wider)
        except (MergecError, RecursionError):
            return True

    def place(name: str) -> int:
        at = space.layer_of(name)
        return position.get(name, ends.get(at[:2], len(position)) if at else len(position))

    kept = [name for name in found if there(name)]
    names = tuple(sorted((*space.names, *kept), key=place)) if kept else space.names
    return space.over(names, space.depths, space.owner, space.stored)


def _layer(layers: Mapping[int, list[str]], number: int) -> list[str]:
    """The names below a layer; beyond the last one its names. Between others a number may have
    none."""
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
