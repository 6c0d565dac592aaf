"""Where each layer of the output comes from, and whether models that are taken whole have as many
layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...grammar.diagnostic import Diagnostic, Label, finding
from ..checkpoint.model import Model
from ..evaluate.settings import Settings
from ..family.parts import stack_renamed
from ..family.place import IndexStep
from ..family.space import Space
from ..terms.assembly import stack_origins
from ..terms.terms import Assembly, Leaf, Region, Stack, Tie, is_region, picks
from .coverage import Covering

Sources = list[tuple[Model, int] | None]
"""For each layer of a stack of the output: a model and its layer."""


def layer_sources(
    settings: Settings, space: Space, found: Sequence[Covering], owner: Mapping[str, Covering]
) -> tuple[dict[str, Sources], dict[int, list[Diagnostic]]]:
    """For each stack, which (model, layer) most tensors of each of its layers were picked from; and
    errors (E0315) by statement."""
    out: dict[str, Sources] = {}
    errors: dict[int, list[Diagnostic]] = {}
    for stack, depth in space.depths.items():
        template_depth = settings.template.space.depths.get(stack, 0)
        own: Sources = [(settings.template, j) if j < template_depth else None for j in range(depth)]
        tally: list[dict[int, list[tuple[Model, int] | None]]] = [{} for _ in range(depth)]
        touched: dict[int, dict[int, int]] = {}
        for name in space.names:
            at = space.layer_of(name)
            if at is not None and at[0].name == stack and name in owner:
                given = touched.setdefault(owner[name].assignment.number, {})
                given[at[1]] = given.get(at[1], 0) + 1
        for covering in found:
            value, layers = covering.assignment.value, touched.get(covering.assignment.number, {})
            if not layers or not is_region(value) or isinstance(value, Tie):
                continue
            # what is picked is matched with all that the statement covers, also where a later one
            # counts
            covered = {at[1] for name in covering.names if (at := space.layer_of(name)) and at[0].name == stack}
            picked = _picked(value, stack, sorted(covered), own)
            for j, count in layers.items():
                tally[j].setdefault(count, []).append(picked[j])
            wrong = _unfit(settings, space, stack, covering, sorted(layers))
            if wrong:
                errors.setdefault(covering.assignment.number, []).extend(wrong)
        # of statements that give as much of a layer the last counts
        out[stack] = [by_count[max(by_count)][-1] if by_count else own[j] for j, by_count in enumerate(tally)]
    return out, errors


def _picked(value: Region, stack: str, layers: Sequence[int], own: Sources) -> dict[int, tuple[Model, int] | None]:
    """What the layers of a statement were picked from; those of a model taken whole stay the
    template's, past its depth they are that model's."""
    flat: Sources = []
    picked, whole = picks(value)
    if isinstance(value, Stack):
        flat.extend(stack_origins(value))
    elif picked:
        owner, path = picked[0]
        selection = owner.space.select(path)
        known = owner.origins.get(stack, []) if isinstance(owner, Assembly) else None
        flat.extend((owner, i) if isinstance(owner, Model) else (known or [])[i] for i in selection.indices)
    for built in [o for o in whole if isinstance(o, Assembly)][:1]:
        origins = built.origins.get(stack, [])
        flat = [origins[j] if j < len(origins) else own[j] for j in layers]
    if len(flat) == len(layers):
        return dict(zip(layers, flat, strict=True))
    first = next((o.model for o in whole if isinstance(o, Leaf)), None)
    deep = first.space.depths.get(stack, 0) if first is not None else 0
    return {j: own[j] or ((first, j) if first is not None and j < deep else None) for j in layers}


def _unfit(settings: Settings, space: Space, stack: str, covering: Covering, layers: Sequence[int]) -> list[Diagnostic]:
    """Models taken whole by a statement for all layers, of which layers would be dropped or are
    missing."""
    path, depth, found = covering.assignment.path, space.depths[stack], []
    if any(isinstance(s, IndexStep) and s.intervals for s in path.steps):
        return []
    # not by their labels, which two models of one folder name have in common
    whole = {id(leaf.space): leaf for leaf in picks(covering.assignment.value)[1]}
    for leaf in whole.values():
        have = leaf.space.depths.get(stack_renamed(stack, space.family, leaf.space.family))
        if have is None or not ((have > depth and settings.layers is None) or layers[-1] >= have):
            continue
        from_template = depth == settings.template.space.depths.get(stack)
        found.append(
            finding(
                "E0315",
                f"{f'`{leaf.label}`' if leaf.label else 'this model'} has {have} layers and the output {depth}",
                (Label(leaf.span, f"{have} layers"), Label(path.span, f"{depth} layers")),
                notes=f"the output's depth is that of `{settings.template.label}`" if from_template else (),
                help=f"say which layers meet: `{stack}[0..{min(have, depth) - 1}] = …`,"
                f" or build the stack: `{stack} = stack(…)`",
            )
        )
    return found
