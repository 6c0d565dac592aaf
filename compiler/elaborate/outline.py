"""What the output consists of, before any value: the depth of its stacks and the names of its
tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from ...grammar.diagnostic import Diagnostic, MergecError, error, finding
from ..checkpoint.catalog import Part
from ..checkpoint.layouts import CANONICAL, pack
from ..evaluate.settings import Settings
from ..evaluate.statements import Assignment, Recipe
from ..family.family import Family, LayerStack
from ..family.place import GlobStep, IndexStep, NameStep, Path
from ..family.space import Space
from ..terms.assembly import below_layers, output_names, stack_origins, with_optional
from ..terms.lookup import exists
from ..terms.terms import Assembly, Stack, is_region, picks, where_of
from .coverage import coverings, owners
from .layer_origins import layer_sources

MAX_LAYERS = 10_000
"""The most layers that a stack of the output can have; real models have some hundreds."""


def outline(recipe: Recipe, settings: Settings, left: Sequence[Part] = ()) -> tuple[Space, list[Diagnostic]]:
    """The output's tensors as a space that places are resolved against, without those of parts that
    are `left` as they are; and what is wrong with its depth."""
    errors: list[Diagnostic] = []
    depth = _depths(recipe, settings, errors)
    _check_depth(recipe, settings, depth)
    return _space(recipe, settings, depth, left), errors


def _check_depth(recipe: Recipe, settings: Settings, depth: Mapping[str, int]) -> None:
    """Raises MergecError (E0181) for a stack of more layers than could be listed."""
    for stack, layers in depth.items():
        if layers > MAX_LAYERS:
            own = settings.template.space.depths.get(stack, 0)
            indexed = [
                (interval.stop or 0, interval.span)
                for path in recipe.paths
                for step in path.steps
                if isinstance(step, IndexStep)
                for interval in step.intervals
            ]
            where = max(indexed, key=lambda each: each[0])[1] if indexed and own != layers else settings.template.span
            where = settings.spans.get("layers", where)
            message = f"the output would have {layers} layers, over the limit of {MAX_LAYERS}"
            raise error("E0181", message, where, "too many layers")


def check_places(recipe: Recipe, settings: Settings) -> list[Diagnostic]:
    """What is wrong with the places on the left, for a recipe whose values could not all be
    evaluated."""
    space, found = outline(recipe, settings)
    for path in recipe.paths:
        try:
            space.select(path)
        except MergecError as error:
            found.extend(error.diagnostics)
    return found


def _space(recipe: Recipe, settings: Settings, depth: Mapping[str, int], left: Sequence[Part]) -> Space:
    """The output's canonical names, with those of its layout accepted as module paths.

    They are the template's, its layers cut or repeated to the output's depth, or those of the
    layers that they are stacks of.
    """
    template = settings.template
    family, layout = template.family, settings.layout or template.layout
    built = [found for stack in family.stacks if (found := _built(recipe, stack.name)) is not None]
    origins = {stack: stack_origins(value) for stack, value in built}
    names = output_names(template.space, depth, origins)
    if left:
        names = tuple(name for name in names if not any(name.startswith(part.prefix) for part in left))
    space = template.space.over(names, depth, "the output", {})
    if any(_takes_layers(assignment) for assignment in recipe.assignments):
        space = _of_its_own(recipe, settings, space)
    if built:
        space = _with_its_optional(recipe, space, frozenset(origins))
    # only which parts go together is asked for, so any shape will do, the same for all
    packed = () if layout == CANONICAL else pack(family, layout, dict.fromkeys(space.names, (1,)))
    stored = {p.name: p.parts for p in packed if p.parts != (p.name,)}
    return space.over(space.names, depth, space.owner, stored)


def _takes_layers(assignment: Assignment) -> bool:
    """Whether a statement gives some layers, by number, the value of others."""
    steps = assignment.path.steps
    numbered = bool(steps) and isinstance(steps[-1], IndexStep) and bool(steps[-1].intervals)
    return numbered and is_region(assignment.value) and bool(picks(assignment.value)[0])


def _of_its_own(recipe: Recipe, settings: Settings, space: Space) -> Space:
    """The space with the names of those layers that come from layers of another kind."""
    found = [c for c in coverings(recipe, space)[0] if _of_whole_layers(c.assignment.path, space.family)]
    sources, _ = layer_sources(settings, space, found, owners(found))
    theirs: dict[tuple[int, str], dict[int, list[str]]] = {}
    changed: dict[tuple[str, int], list[str]] = {}
    for stack in space.family.stacks:
        optional = partial(_is_optional, space.family, stack)
        mine = below_layers(space, stack.name)
        for j, source in enumerate(sources.get(stack.name, ())):
            if source is None:
                continue
            model, layer = source
            if model.family.name != space.family.name:
                continue  # a layer of another architecture is none of this one
            known = theirs.setdefault((model.number, stack.name), below_layers(model.space, stack.name))
            rests = known.get(layer, [])
            if rests and {r for r in rests if not optional(r)} != {r for r in mine.get(j, []) if not optional(r)}:
                changed[stack.name, j] = [f"{stack.head}{j}.{rest}" for rest in rests]
    if not changed:
        return space
    names: list[str] = []
    for name in space.names:
        at = space.layer_of(name)
        own = changed.get((at[0].name, at[1])) if at is not None else None
        if own is None:
            names.append(name)
        elif own[0] not in names:
            names.extend(own)
    return space.over(tuple(names), space.depths, space.owner, space.stored)


def _of_whole_layers(path: Path, family: Family) -> bool:
    """Whether a place is that of a stack, of some of its layers, or of everything."""
    words = ".".join(s.name for s in path.steps if isinstance(s, NameStep))
    ends = all(isinstance(s, NameStep) for s in path.steps[:-1]) and not any(
        isinstance(s, GlobStep) for s in path.steps
    )
    return not path.steps or (ends and any(words == stack.name for stack in family.stacks))


def _is_optional(family: Family, stack: LayerStack, rest: str) -> bool:
    return family.is_optional(f"{stack.head}0.{rest}")


def _with_its_optional(recipe: Recipe, space: Space, stacks: Collection[str]) -> Space:
    """The space with those optional tensors in the layers of stacks that what finally gives the
    layer its value has."""
    has = partial(_has, recipe)
    space = with_optional(space, [a.value for a in recipe.assignments if is_region(a.value)], has)

    def stays(name: str) -> bool:
        at = space.layer_of(name)
        if at is None or at[0].name not in stacks or not space.family.is_optional(name):
            return True
        try:
            return has(name, space)
        except (MergecError, RecursionError):
            return True  # making it says what is wrong

    return space.over(tuple(filter(stays, space.names)), space.depths, space.owner, space.stored)


def _has(recipe: Recipe, name: str, space: Space) -> bool:
    """Whether the statement that counts for an optional tensor of a layer has one to give."""
    if space.layer_of(name) is None:
        return False
    for assignment in reversed(recipe.assignments):
        selection = space.find(assignment.path)
        if selection is not None and name in selection.names:
            where = where_of(space, selection.names, selection.counts, name)
            return not is_region(assignment.value) or exists(assignment.value, where)
    return False


def _depths(recipe: Recipe, settings: Settings, errors: list[Diagnostic]) -> dict[str, int]:
    """The depth of each stack: `output(layers=…)`; else that of the last `stack(…)` or model put
    together that it is given whole; else the template's or one past the highest layer that is
    named."""
    own = dict(settings.template.space.depths)
    built: dict[str, int] = {}
    for assignment in recipe.assignments:
        for stack in settings.template.family.stacks:
            parts = stack.name.split(".")
            steps = assignment.path.steps
            if not steps and is_region(assignment.value):
                assemblies = [o for o in picks(assignment.value)[1] if isinstance(o, Assembly)]
                if assemblies:
                    built[stack.name] = max(o.space.depths.get(stack.name, 0) for o in assemblies)
                continue
            words = [s.name if isinstance(s, NameStep) else None for s in steps[: len(parts)]]
            if words != parts:
                continue
            rest = steps[len(parts) :]
            index = rest[0] if rest and isinstance(rest[0], IndexStep) else None
            if isinstance(assignment.value, Stack) and (index is None or not index.intervals):
                if len(rest) <= (index is not None):
                    built[stack.name] = sum(assignment.value.counts)
            elif index is not None:
                tops = [i.stop for i in index.intervals if i.stop is not None]
                own[stack.name] = max(own.get(stack.name, 0), *[t + 1 for t in tops], 0)
    own |= built
    if settings.layers is not None:
        stacks = [s.name for s in settings.template.family.stacks if s.name in own]
        stacks = ["layers"] if "layers" in stacks else stacks
        if len(stacks) == 1:
            own[stacks[0]] = settings.layers
        else:
            found = " and ".join(f"`{s}`" for s in stacks) or "no stack of layers"
            errors.append(
                finding(
                    "E0302",
                    f"`layers` can't be set: the output has {found}",
                    settings.spans["layers"],
                    "which one?",
                    help=[f"`{s} = stack(…)` sets its depth" for s in stacks],
                )
            )
    return own


def _built(recipe: Recipe, stack: str) -> tuple[str, Stack] | None:
    """The stack and the `stack(…)` that it is built by; None where a later statement gives all of
    the layers another value."""
    for assignment in reversed(recipe.assignments):
        steps = assignment.path.steps
        words = [s.name for s in steps if isinstance(s, NameStep)]
        every = all(isinstance(s, NameStep) or (isinstance(s, IndexStep) and not s.intervals) for s in steps)
        if isinstance(assignment.value, Stack) and ".".join(words) == stack:
            return stack, assignment.value
        if every and (not steps or ".".join(words) == stack):
            return None
    return None
