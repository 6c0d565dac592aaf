"""Which of several models have a tensor, where their families mark it optional.

A bias that only some exporters store, or that a config turns off, may be in one model and not in another. A function
over models (`Among`) is then called with those that have it. Elsewhere a tensor that is absent counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .models import Model
from .places import Path, Selection
from .terms import Among, Apply, At, Choice, Leaf, Number, Region, Stack, Where, leaves

Resolve = Callable[[Any, Where], Any]


def may_lack(regions: tuple[Region, ...], known: dict[int, frozenset[str]]) -> bool:
    """Whether an optional tensor may be in some of these regions alone. `known` keeps what was found for a model."""
    found = {_optional(leaf.model, known) for region in regions for leaf in leaves(region)}
    return len(found) > 1


def _optional(model: Model, known: dict[int, frozenset[str]]) -> frozenset[str]:
    """The optional tensors that a model has."""
    if model.number not in known:
        known[model.number] = frozenset(n for n in model.space.names if model.family.is_optional(n))
    return known[model.number]


def exists(term: Region, where: Where, resolve: Resolve) -> bool:
    """Whether a region has a tensor at a place; one that is not optional it has, or its own error tells."""
    if isinstance(term, Leaf):
        if not term.model.family.is_optional(where.name):
            return True
        name: str | None = where.name
        if term.path is not None:
            name = matching(term.model.space.select(term.path), where)
        return name is not None and term.model.find(name) is not None
    if isinstance(term, Number):
        return True
    if isinstance(term, Choice):
        return exists(term.then if resolve(term.condition, where) else term.other, where, resolve)
    if isinstance(term, Among):
        return any(exists(m, where, resolve) for m in term.models)
    if isinstance(term, At):
        return _at(term.region, term.path, where, resolve)
    if isinstance(term, Apply):
        parts = [a for a in term.args if not isinstance(a, Number)]
        return not parts or any(exists(a, where, resolve) for a in parts)
    if isinstance(term, Stack):
        return any(exists(p, where, resolve) for p in term.parts)
    return True


def _at(region: Region, path: Path, where: Where, resolve: Resolve) -> bool:
    leaf = next(iter(leaves(region)), None)
    if leaf is None or not leaf.model.family.is_optional(where.name):
        return True
    name = matching(leaf.model.space.select(path), where)
    if name is None:
        return False
    inner = Where(name, ((), name), (), leaf.model.space, None, where.layers, where.output)
    return exists(region, inner, resolve)


def matching(selection: Selection, where: Where) -> str | None:
    """The name under an explicit place that corresponds to the output's tensor; None where nothing does."""
    return selection.by_coordinate.get(where.coordinate) if selection.counts == where.counts else None
