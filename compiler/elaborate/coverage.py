"""Which statement gives a value to which tensors, which tensors have none, and which inputs are not
used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...grammar.diagnostic import Diagnostic, Label, Severity, collecting, finding
from ...grammar.records import dataclass
from ..checkpoint.catalog import Part
from ..checkpoint.layouts import View
from ..checkpoint.model import Model
from ..evaluate.settings import Settings
from ..evaluate.statements import Assignment, Recipe
from ..family.folding import fold, listed
from ..family.parts import MODALITIES
from ..family.space import Coordinate, Space
from ..graph.graph import Graph
from ..terms.terms import is_region, leaves
from .equivalence import Range, sources_below


@dataclass(frozen=True, slots=True)
class Covering:
    """What a statement covers: names in the output's order, and the coordinates under its place."""

    assignment: Assignment
    names: Mapping[str, Coordinate]
    counts: tuple[int, ...]


def coverings(recipe: Recipe, space: Space) -> tuple[list[Covering], list[Diagnostic]]:
    """What each statement covers; statements whose place is wrong are skipped."""
    out: list[Covering] = []
    errors: list[Diagnostic] = []
    for assignment in recipe.assignments:
        with collecting(errors):
            selection = space.select(assignment.path)
            out.append(Covering(assignment, selection.names, selection.counts))
    return out, errors


def owners(found: Sequence[Covering]) -> dict[str, Covering]:
    """The last statement that covers each tensor: the one that counts."""
    return {name: covering for covering in found for name in covering.names}


def shadowed(found: Sequence[Covering], owner: Mapping[str, Covering]) -> list[Diagnostic]:
    """Warnings about statements that later ones cover whole."""
    warnings: list[Diagnostic] = []
    for covering in found:
        if any(owner[name] is covering for name in covering.names):
            continue
        later: dict[int, Covering] = {}
        for name in covering.names:
            later.setdefault(owner[name].assignment.number, owner[name])
        labels = [Label(covering.assignment.path.span, "covered whole by later statements")]
        labels += [Label(c.assignment.path.span, "covers it") for _, c in sorted(later.items())[:3]]
        warnings.append(
            finding(
                "W0501",
                f"the statement for `{covering.assignment.path}` has no effect",
                labels,
                help="later statements win: put the general one first",
            )
        )
    return warnings


def uncovered(recipe: Recipe, settings: Settings, space: Space, missing: list[str]) -> Diagnostic:
    """The error about tensors of the output that no statement gives a value."""
    shown = fold(missing, space)
    number = f"{len(missing)} tensor{'s' if len(missing) > 1 else ''}"
    help_ = ["give everything a value first: `* = …`"]
    if not settings.template_named:
        help_.append(f"or copy what is left from a template: `output(like={settings.template.label})`")
    span = recipe.assignments[-1].statement.span if recipe.assignments else settings.template.span
    notes = [f"not covered: {', '.join(shown[:12])}{' …' if len(shown) > 12 else ''}"]
    if settings.template_named:
        notes.append(f"the template, `{settings.template.label}`, has nothing to copy there")
    return finding(
        "E0308",
        f"{number} of the output {'have' if len(missing) > 1 else 'has'} no value",
        span,
        "no statement so far covers them",
        notes=notes,
        help=help_,
    )


def unused(
    recipe: Recipe, settings: Settings, space: Space, graph: Graph, left: Sequence[Part] = ()
) -> list[Diagnostic]:
    """Inputs of which nothing is used, and tensors of an input that no output place corresponds to:
    warnings, or errors under `--strict`. Nothing is said of parts that are `left` as they are."""
    found: list[Diagnostic] = []
    live = {n.attribute("range").model for n in graph.live() if n.op == "source"}
    severity = Severity.ERROR if settings.strict else Severity.WARNING
    for adapter in recipe.adapters:
        if adapter.model.number not in live:
            found.append(_idle(adapter.model, severity))
    names = frozenset(space.names)
    parts = _taken_in_parts(recipe)
    have: set[tuple[str, str]] = set()
    read: set[Range] = set()
    for model in recipe.models:
        if model.number not in live and model.number != settings.template.number:
            found.append(_idle(model, severity))
            continue
        if model.number not in live or model.number in parts:
            continue
        # nearly always all are there by name, and nothing is asked of 100,000 tensors
        rest = model.tensors.keys() - names if model.space.family is space.family else model.tensors.keys()
        if rest:
            have = have or {space.slot(n) for n in space.names}
        extra = [n for n in model.tensors if n in rest and model.space.slot(n) not in have]
        extra = [n for n in extra if not any(n.startswith(part.prefix) for part in left)]
        if extra:
            # a pick from another place, or from a model of another family, may read them all the
            # same
            read = read or _read(graph)
            extra = [n for n in extra if (model.number, *_range(model.tensors[n])) not in read]
        if extra:
            found.append(
                finding(
                    "W0503",
                    f"{len(extra)} tensor{'s' if len(extra) > 1 else ''} of `{model.label}` "
                    f"{'have' if len(extra) > 1 else 'has'} no place in the output",
                    model.span,
                    "left out: " + listed(extra, model.space),
                    severity=severity,
                )
            )
    return found


def _taken_in_parts(recipe: Recipe) -> set[int]:
    """The models of which the recipe asks for a part that is a model of its own, and nothing else:
    what lies beside it is not expected anywhere."""
    whole: dict[int, bool] = {}
    for assignment in recipe.assignments:
        for leaf in leaves(assignment.value) if is_region(assignment.value) else ():
            part = leaf.path is not None and leaf.path.text in MODALITIES
            whole[leaf.model.number] = whole.get(leaf.model.number, False) or not part
    return {number for number, all_of_it in whole.items() if not all_of_it}


def _read(graph: Graph) -> set[Range]:
    """What the output is made of."""
    lone = sources_below(o.node for o in graph.outputs if o.equivalence is None)
    found = {(s.model, s.stored, s.first) for s in lone}
    for output in graph.outputs:
        if output.equivalence is not None:
            pairs = zip(output.equivalence.sources, output.reads, strict=True)
            found.update((s.model, *_range(view)) for s, view in pairs)
    return found


def _range(view: View) -> tuple[str, int]:
    return view.stored, view.first


def _idle(model: Model, severity: Severity) -> Diagnostic:
    message, label = f"nothing of `{model.label}` is used", "not needed by the output"
    return finding("W0502", message, model.span, label, severity=severity)
