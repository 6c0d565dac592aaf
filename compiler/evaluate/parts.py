"""Parts of the template that are copied as they are, as not all inputs have the like."""

from __future__ import annotations

from ...grammar.diagnostic import Diagnostic, finding
from ..checkpoint.catalog import Part
from ..checkpoint.layouts import View
from ..checkpoint.model import Model
from ..family.place import GlobStep, NameStep
from .statements import Recipe


def left_parts(recipe: Recipe, template: Model) -> tuple[tuple[Part, ...], list[Diagnostic]]:
    """The parts, and a warning (W0596) for each.

    A part is left where an input has no such one, or its tensors have other names or shapes there,
    and no statement is about it. A component of a pipeline is a model, of which there is no mean
    with one of another shape: that stays an error. So it is left only where another pipeline lacks
    it.
    """
    left: list[Part] = []
    warnings = []
    for part in template.checkpoint.parts:
        if not part.folder or _is_named(part, recipe):
            continue
        own = _tensors(template, part)
        for model in recipe.models:
            other = _tensors(model, part)
            if template.checkpoint.is_pipeline and (other or not model.checkpoint.is_pipeline):
                continue
            if {n: v.shape for n, v in own.items()} != {n: v.shape for n, v in other.items()}:
                left.append(part)
                what = "has other tensors there" if other else "has none"
                warnings.append(
                    finding(
                        "W0596",
                        f"`{part.folder}` is copied from `{template.label}` as it is: `{model.label}` {what}",
                        model.span,
                        "not of the like form",
                    )
                )
                break
    return tuple(left), warnings


def _tensors(model: Model, part: Part) -> dict[str, View]:
    return {name: view for name, view in model.tensors.items() if name.startswith(part.prefix)}


def _is_named(part: Part, recipe: Recipe) -> bool:
    """Whether a statement gives the part, or some of it, a value of its own."""
    for path in recipe.paths:
        first = path.steps[0] if path.steps else None
        words = [step.name for step in path.steps if isinstance(step, NameStep)]
        glob = first.pattern if isinstance(first, GlobStep) else ""
        if f"{'.'.join(words)}.".startswith(part.prefix) or glob.startswith(part.prefix):
            return True
    return False
