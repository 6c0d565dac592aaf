"""Tensors that the output stores twice: two names, one value.

Where nothing says that two tensors are tied and yet all models that a statement reads hold equal bytes for them, they
are one tensor: computed once, under one random mask, and stored under both names as the template stores them.
"""

from __future__ import annotations

from collections.abc import Mapping

from .coverage import Covering
from .models import Model
from .terms import Tie, has_adapter, models_in, picks
from .vocabulary import Vocabulary


def output_twins(
    template: Model, owner: Mapping[str, Covering], ties: Mapping[str, str], vocabulary: Vocabulary | None
) -> dict[str, str]:
    """Each output name that has another's value, with the other's.

    A statement for one of the two alone, one that takes either from a place of its own, an adapter, and a model with
    different bytes for them, if only for rows of it, make two tensors of them.
    """
    found: dict[str, str] = {}
    for name, other in template.twins.items():
        covering = owner.get(name)
        if covering is None or owner.get(other) is not covering or name in ties or other in ties:
            continue
        value = covering.assignment.value
        models = models_in(value)
        if isinstance(value, Tie) or not models or has_adapter(value) or picks(value)[0]:
            continue
        if vocabulary is not None:
            models = vocabulary.read_for(models, (name, other))
        if all(model.are_one(name, other) for model in models):
            found[name] = other
    return found
