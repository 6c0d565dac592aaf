"""A checkpoint as the recipe sees it: family, layout, canonical tensors, and which of them are
one."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from typing import Any

from ...grammar.diagnostic import Diagnostic, finding
from ...grammar.records import dataclass
from ...grammar.source import Span
from ..family.family import Family, build, family_for
from ..family.space import Space
from .bundles import Bundles
from .catalog import Catalog, Checkpoint
from .factors import factors_of
from .layouts import Recognised, View, recognise, rename_stored
from .quantised import quantisation
from .ties import read_ties

_MOST_NAMED = 5

_PIPELINE = build({"name": "pipeline"})
"""A pipeline has no places but its components, and their modules below them."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An input checkpoint.

    `label` is its name in the recipe. `tensors` maps canonical names to contiguous ranges of stored
    tensors; `aliases` maps each canonical name that shares another's storage to that other name
    (the primary). `recognised` is what was found out of names and shapes alone. `bundles`: tensors
    that may only be copied, and together. `duplicates` maps names to others that hold equal bytes,
    both stored (`ties.py`); each is among `tensors`.
    """

    number: int
    label: str
    source: str
    checkpoint: Checkpoint
    family: Family
    layout: str
    tensors: Mapping[str, View]
    aliases: Mapping[str, str]
    ignored: tuple[str, ...]
    space: Space
    span: Span
    recognised: Recognised
    bundles: tuple[Bundles, ...] = ()
    duplicates: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str) -> tuple[str, View] | None:
        """The canonical name under which `name` is stored here, and where; ties followed."""
        view = self.tensors.get(name)
        if view is not None:
            return name, view
        primary = self.aliases.get(name)
        return (primary, self.tensors[primary]) if primary is not None else None

    def are_one(self, alias: str, primary: str) -> bool:
        """Whether two names stand for one tensor here, or for two of equal bytes."""
        return self.aliases.get(alias) == primary or self.duplicates.get(alias) == primary

    def dtype(self, view: View) -> str:
        return self.checkpoint.tensors[view.stored].dtype

    @property
    def config(self) -> Mapping[str, Any]:
        return self.checkpoint.config or {}

    @property
    def parameters(self) -> int:
        """Elements of all stored tensors, without buffers, which are no parameters."""
        return sum(math.prod(view.shape) for view in self.tensors.values())


def bind(
    catalog: Catalog,
    checkpoint: Checkpoint,
    *,
    number: int,
    label: str,
    source: str,
    rename: Mapping[str, str] | None,
    span: Span,
    known: Sequence[Model] = (),
) -> tuple[Model, list[Diagnostic]]:
    """Recognises family, layout and ties of a checkpoint; the diagnostics are warnings.

    What is merged mostly has the same tensors, and what was found out about one of the `known`
    models holds for all that list the same.
    """
    if rename:
        checkpoint = rename_stored(checkpoint, rename)
    precedent = next((m for m in known if _same_tensors(m.checkpoint, checkpoint)), None)
    if precedent is not None and precedent.checkpoint.config == checkpoint.config:
        family = precedent.family
    elif checkpoint.is_pipeline:
        family = _PIPELINE
    else:
        family = family_for(checkpoint.config, _own_names(checkpoint))
    if precedent is not None and precedent.family is family:
        seen = precedent.recognised
    else:
        precedent, seen = None, recognise(checkpoint, family)
    tensors = dict(seen.views)
    ties = read_ties(catalog, checkpoint, family, tensors)
    for alias in ties.aliases:
        tensors.pop(alias, None)
    warnings = [
        finding(
            "W0504",
            f"`{label}` says that `{alias}` and `{primary}` are tied, but stores different bytes for them",
            span,
            "treated as two tensors",
            notes="loading such a checkpoint keeps both, so merging does too",
        )
        for primary, alias in ties.differ
    ]
    warnings += [
        finding(
            "W0571",
            f"whether `{alias}` and `{primary}` of `{label}` are one tensor is not known",
            span,
            "treated as two tensors",
            notes="config.json says that they are tied, and their bytes can't be compared from here",
            help="open a local copy of the checkpoint",
        )
        for primary, alias in ties.undetermined
    ]
    taken = next((part for part in checkpoint.parts if part.variant and checkpoint.chosen[1] is None), None)
    if taken is not None:
        where = f"`{taken.folder}` of `{label}`" if taken.folder else f"`{label}`"
        warnings.append(
            finding(
                "W0595",
                f"{where} has its weights in the variant `{taken.variant}` alone",
                span,
                "that one is read, and the output is called by it too",
                help=f'say so: `variant="{taken.variant}"`',
            )
        )
    if checkpoint.passed_over:
        count = len(checkpoint.passed_over)
        some = ", ".join(f"`{name}`" for name in checkpoint.passed_over[:_MOST_NAMED]) + ", …" * (count > _MOST_NAMED)
        warnings.append(
            finding(
                "W0574",
                f"what `{label}` has beside its weights is passed over: {some}",
                span,
                f"{count} such {'entry' if count == 1 else 'entries'}",
            )
        )
    stored: dict[str, tuple[str, ...]] = {}
    if seen.layout != "canonical":
        for name, view in tensors.items():
            if view.stored != name:
                stored[view.stored] = (*stored.get(view.stored, ()), name)
    for alias in ties.aliases:
        stored.pop(alias, None)
    names, owner = (*tensors, *ties.aliases), f"`{label}`"
    if precedent is not None and precedent.space.names == names:
        space = precedent.space.over(names, precedent.space.depths, owner, stored)
    else:
        space = Space(family, names, {}, owner, stored)
        space.depths = depths(space)
    model = Model(
        number,
        label,
        source,
        checkpoint,
        family,
        seen.layout,
        tensors,
        ties.aliases,
        seen.ignored,
        space,
        span,
        seen,
        tuple([b for b in (quantisation(checkpoint), factors_of(checkpoint)) if b is not None]),
        duplicates=ties.duplicates,
    )
    return model, warnings


def _own_names(checkpoint: Checkpoint) -> Collection[str]:
    """The tensors that tell a checkpoint's family: not those in folders of their own."""
    prefixes = tuple(part.prefix for part in checkpoint.parts if part.folder)
    return [n for n in checkpoint.tensors if not n.startswith(prefixes)] if prefixes else checkpoint.tensors


def _same_tensors(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints have tensors of the same names and shapes, in the same order."""
    if len(one.tensors) != len(other.tensors) or list(one.tensors) != list(other.tensors):
        return False
    pairs = zip(one.tensors.values(), other.tensors.values(), strict=True)
    return all(a.shape == b.shape for a, b in pairs)


def depths(space: Space) -> dict[str, int]:
    """The length of each stack: one past the highest layer present."""
    from_names: dict[str, int] = {}
    for name in space.names:
        at = space.layer_of(name)
        if at is not None:
            from_names[at[0].name] = max(from_names.get(at[0].name, 0), at[1] + 1)
    return from_names
