"""Tensors that the output stores twice: two names, one value.

Where nothing says that two tensors are tied and yet all models that a statement reads hold equal
bytes for them, they are one tensor: computed once, under one random mask, and stored under both
names as the template stores them.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...grammar.diagnostic import MergecError
from ..checkpoint.model import Model
from ..family.parts import renamed
from ..family.space import Space
from ..terms.terms import (
    Apply,
    Lora,
    Region,
    Tie,
    adapters_on,
    is_region,
    models_in,
    owners,
    picks,
    walk,
    where_of,
)
from .coverage import Covering
from .equivalence import RegionSignature
from .ties import change_of, same_change
from .vocabulary import Vocabulary


def output_duplicates(
    template: Model,
    space: Space,
    owner: Mapping[str, Covering],
    ties: Mapping[str, str],
    vocabulary: Vocabulary | None,
) -> dict[str, str]:
    """Each output name that has another's value, with the other's.

    A statement for one of the two alone, one that says something else of the one than of the other,
    or takes either from a place of its own, an adapter that changes them unlike, and a model with
    different bytes for them, if only for rows of it, make two tensors of them.
    """
    found: dict[str, str] = {}
    for name, other in template.duplicates.items():
        covering = owner.get(name)
        if covering is None or owner.get(other) is not covering or name in ties or other in ties:
            continue
        value = covering.assignment.value
        models = models_in(value)
        if not is_region(value) or isinstance(value, Tie) or not models or picks(value)[0]:
            continue
        if vocabulary is not None:
            models = vocabulary.read_for(models, (name, other), space.family)
        if (
            all(model.are_one(*(renamed(n, space.family, model.family) for n in (name, other))) for model in models)
            and _same_value(value, covering, space, name, other)
            and _same_changes(value, template, name, other)
        ):
            found[name] = other
    return found


def _same_value(value: Region, covering: Covering, space: Space, name: str, other: str) -> bool:
    """Whether a value's numbers, conditions and places are the same for both tensors."""
    signature = RegionSignature(value, None, space.family)
    first, second = (signature.at(where_of(space, covering.names, covering.counts, n)) for n in (name, other))
    return first is not None and second is not None and first.key == second.key


def _same_changes(value: Region, template: Model, name: str, other: str) -> bool:
    """Whether all adapters in a value do the same to both tensors; not where one does not fit,
    which making it says."""
    on: dict[int, tuple[Lora, Model]] = {}
    for term in walk(value):
        if isinstance(term, Lora):
            on.setdefault(id(term), (term, template))
        elif isinstance(term, Apply) and term.op == "add":
            base, loras = adapters_on(term)
            found = owners(base)
            on.update({id(lora): (lora, found[0].model) for lora in loras if found})
    for lora, model in on.values():
        try:
            one, two = (change_of(lora.adapter, model, n, lora.span) for n in (name, other))
        except MergecError:
            return False
        if not same_change(lora.adapter, one, two):
            return False
    return True
