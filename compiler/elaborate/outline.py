"""What the output consists of, before any value: the depth of its stacks and the names of its
tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from ...grammar.diagnostic import Diagnostic, MergecError, error, finding
from ..checkpoint.catalog import Part
from ..checkpoint.layouts import CANONICAL, pack
from ..evaluate.settings import Settings
from ..evaluate.statements import Recipe
from ..family.place import IndexStep, NameStep, Path
from ..family.space import Space
from ..terms.assembly import output_names, stack_origins, with_optional
from ..terms.lookup import exists
from ..terms.terms import Assembly, Stack, is_region, picks, where_of

MAX_LAYERS = 10_000
"""The most layers that a stack of the output can have; real models have some hundreds."""


def outline(
    recipe: Recipe, settings: Settings, left: Sequence[Part] = ()
) -> tuple[Space, list[Diagnostic]]:
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
    origins = {stack: stack_origins(value) for stack, value, _ in built}
    names = output_names(template.space, depth, origins)
    if left:
        names = tuple(name for name in names if not any(name.startswith(part.prefix) for part in left))
    space = template.space.over(names, depth, "the output", {})
    for _, value, path in built:
        space = with_optional(space, [value], partial(_has, value, path))
    # only which parts go together is asked for, so any shape will do, the same for all
    packed = () if layout == CANONICAL else pack(family, layout, dict.fromkeys(space.names, (1,)))
    stored = {p.name: p.parts for p in packed if p.parts != (p.name,)}
    return space.over(space.names, depth, space.owner, stored)


def _has(value: Stack, path: Path, name: str, space: Space) -> bool:
    selection = space.select(path)
    return name in selection.names and exists(value, where_of(space, selection.names, selection.counts, name))


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


def _built(recipe: Recipe, stack: str) -> tuple[str, Stack, Path] | None:
    """The `stack(…)` that a stack is built by, and its place; None where a later statement gives
    all of the layers another value."""
    for assignment in reversed(recipe.assignments):
        steps = assignment.path.steps
        words = [s.name for s in steps if isinstance(s, NameStep)]
        every = all(isinstance(s, NameStep) or (isinstance(s, IndexStep) and not s.intervals) for s in steps)
        if isinstance(assignment.value, Stack) and ".".join(words) == stack:
            return stack, assignment.value, assignment.path
        if every and (not steps or ".".join(words) == stack):
            return None
    return None
