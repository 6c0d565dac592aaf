"""A checkpoint as the recipe sees it: family, layout, canonical tensors, and which of them are one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..grammar.diagnostic import Diagnostic, Label, Severity
from ..grammar.source import Span
from .aliases import read_ties
from .catalog import Catalog, Checkpoint
from .family import Family, family_for
from .layouts import View, recognise, rename_stored
from .places import Space


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An input checkpoint.

    `label` is its name in the recipe. `tensors` maps canonical names to contiguous ranges of stored tensors;
    `aliases` maps each canonical name that shares another's storage to that other name (the primary).
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

    def find(self, name: str) -> tuple[str, View] | None:
        """The canonical name under which `name` is stored here, and where; ties followed."""
        view = self.tensors.get(name)
        if view is not None:
            return name, view
        primary = self.aliases.get(name)
        return (primary, self.tensors[primary]) if primary is not None else None

    def dtype(self, view: View) -> str:
        return self.checkpoint.tensors[view.stored].dtype

    @property
    def config(self) -> Mapping[str, Any]:
        return self.checkpoint.config or {}

    @property
    def parameters(self) -> int:
        """Elements of all stored tensors, buffers that are no parameters left out."""
        total = 0
        for view in self.tensors.values():
            n = 1
            for size in view.shape:
                n *= size
            total += n
        return total


def bind(
    catalog: Catalog,
    checkpoint: Checkpoint,
    *,
    number: int,
    label: str,
    source: str,
    rename: Mapping[str, str] | None,
    span: Span,
) -> tuple[Model, list[Diagnostic]]:
    """Recognises family, layout and ties of a checkpoint; the diagnostics are warnings."""
    if rename:
        checkpoint = rename_stored(checkpoint, rename)
    family = family_for(checkpoint.config, checkpoint.tensors)
    seen = recognise(checkpoint, family)
    tensors = dict(seen.views)
    ties = read_ties(catalog, checkpoint, family, tensors)
    for alias in ties.aliases:
        tensors.pop(alias, None)
    warnings = [
        Diagnostic(
            "W0504",
            f"`{label}` says that `{alias}` and `{primary}` are tied, but stores different bytes for them",
            (Label(span, "treated as two tensors"),),
            notes=("loading such a checkpoint keeps both, so merging does too",),
            severity=Severity.WARNING,
        )
        for primary, alias in ties.differ
    ]
    stored: dict[str, tuple[str, ...]] = {}
    if seen.layout != "canonical":
        for name, view in tensors.items():
            if view.stored != name:
                stored[view.stored] = (*stored.get(view.stored, ()), name)
    for alias in ties.aliases:
        stored.pop(alias, None)
    names = (*tensors, *ties.aliases)
    space = Space(family, names, {}, f"`{label}`", stored)
    space.depths = depths(space)
    model = Model(
        number, label, source, checkpoint, family, seen.layout, tensors, ties.aliases, seen.ignored, space, span
    )
    return model, warnings


def depths(space: Space) -> dict[str, int]:
    """The length of each stack: one past the highest layer present."""
    from_names: dict[str, int] = {}
    for name in space.names:
        at = space.layer_of(name)
        if at is not None:
            from_names[at[0].name] = max(from_names.get(at[0].name, 0), at[1] + 1)
    return from_names
