"""What the output consists of, before any value: the depth of its stacks and the names of its tensors."""

from __future__ import annotations

from collections.abc import Mapping

from ...grammar.diagnostic import Diagnostic, Label, MergecError
from ..checkpoint.layouts import CANONICAL, pack
from ..checkpoint.model import Model
from ..evaluate.settings import Settings
from ..evaluate.statements import Recipe
from ..family.place import IndexStep, NameStep
from ..family.space import Space
from ..terms.assembly import output_names, stack_origins
from ..terms.terms import Assembly, Origins, Stack, is_region, picks

MAX_LAYERS = 10_000
"""The most layers that a stack of the output can have; real models have some hundreds."""


def outline(recipe: Recipe, settings: Settings) -> tuple[Space, list[Diagnostic]]:
    """The output's tensors as a space that places are resolved against; and what is wrong with its depth."""
    errors: list[Diagnostic] = []
    depth = _depths(recipe, settings, errors)
    _check_depth(recipe, settings, depth)
    return _space(settings, _names(recipe, settings.template, depth), depth), errors


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
            raise MergecError(Diagnostic("E0181", message, (Label(where, "too many layers"),)))


def check_places(recipe: Recipe, settings: Settings) -> list[Diagnostic]:
    """What is wrong with the places on the left, for a recipe whose values could not all be evaluated."""
    space, found = outline(recipe, settings)
    for path in recipe.paths:
        try:
            space.select(path)
        except MergecError as error:
            found.extend(error.diagnostics)
    return found


def _space(settings: Settings, names: tuple[str, ...], depth: Mapping[str, int]) -> Space:
    """The output's canonical names, with those of its layout accepted as module paths."""
    template = settings.template
    family, layout = template.family, settings.layout or template.layout
    # only which parts go together is asked for, so any shape will do, the same for all
    packed = () if layout == CANONICAL else pack(family, layout, dict.fromkeys(names, (1,)))
    stored = {p.name: p.parts for p in packed if p.parts != (p.name,)}
    return template.space.over(names, depth, "the output", stored)


def _depths(recipe: Recipe, settings: Settings, errors: list[Diagnostic]) -> dict[str, int]:
    """The depth of each stack: `output(layers=…)`; else that of the last `stack(…)` or model put together that it is
    given whole; else the template's or one past the highest layer that is named."""
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
                Diagnostic(
                    "E0302",
                    f"`layers` can't be set: the output has {found}",
                    (Label(settings.spans["layers"], "which one?"),),
                    help=tuple(f"`{s} = stack(…)` sets its depth" for s in stacks),
                )
            )
    return own


def _names(recipe: Recipe, template: Model, depth: Mapping[str, int]) -> tuple[str, ...]:
    """The output's canonical names: the template's, its layers cut or repeated to the output's depth."""
    origins: dict[str, Origins] = {}
    for stack in template.family.stacks:
        found = _stack_origin(recipe, stack.name)
        if found is not None:
            origins[stack.name] = found
    return output_names(template.space, depth, origins)


def _stack_origin(recipe: Recipe, stack: str) -> Origins | None:
    """For a stack that a `stack(…)` builds: the model and layer that each output layer takes its tensors' names
    from. None where a later statement gives all of the layers another value."""
    for assignment in reversed(recipe.assignments):
        steps = assignment.path.steps
        words = [s.name for s in steps if isinstance(s, NameStep)]
        every = all(isinstance(s, NameStep) or (isinstance(s, IndexStep) and not s.intervals) for s in steps)
        if isinstance(assignment.value, Stack) and ".".join(words) == stack:
            return stack_origins(assignment.value)
        if every and (not steps or ".".join(words) == stack):
            return None
    return None
