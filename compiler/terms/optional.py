"""Which of several models have a tensor, where their families mark it optional.

A bias that only some exporters store, or that a config turns off, may be in one model and not in another. A function
over models (`Among`) is then called with those that have it. Elsewhere a tensor that is absent counts as zero.
"""

from __future__ import annotations

from ..checkpoint.model import Model
from .assembly import part_at
from .relocate import matching, moved, optional_at
from .terms import (
    Among,
    Apply,
    Assembly,
    At,
    Choice,
    Leaf,
    Lora,
    Number,
    Region,
    Stack,
    Where,
    leaves,
    owners,
)
from .varying import resolve


def may_lack(regions: tuple[Region, ...], known: dict[int, frozenset[str]]) -> bool:
    """Whether an optional tensor may be in some of these regions alone. `known` keeps what was found for a model."""
    found = {_optional(leaf.model, known) for region in regions for leaf in leaves(region)}
    return len(found) > 1


def _optional(model: Model, known: dict[int, frozenset[str]]) -> frozenset[str]:
    """The optional tensors that a model has."""
    if model.number not in known:
        known[model.number] = frozenset(n for n in model.space.names if model.family.is_optional(n))
    return known[model.number]


def exists(term: Region, where: Where) -> bool:
    """Whether a region has a tensor at a place; one that is not optional it has, or its own error tells."""
    return _Search().exists(term, where)


class _Search:
    """Asks each region at a place once, however often others are made of it."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, Where], bool] = {}

    def exists(self, term: Region, where: Where) -> bool:
        key = (id(term), where)
        if key not in self._known:
            self._known[key] = self._look(term, where)
        return self._known[key]

    def _look(self, term: Region, where: Where) -> bool:
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
            return self.exists(term.then if resolve(term.condition, where) else term.other, where)
        if isinstance(term, Among):
            return any(self.exists(m, where) for m in term.models)
        if isinstance(term, At):
            return self._at(term, where)
        if isinstance(term, Apply):
            parts = [a for a in term.args if not isinstance(a, Number | Lora)]
            return not parts or any(self.exists(a, where) for a in parts)
        if isinstance(term, Stack):
            return self.exists(*moved(term, where))
        if isinstance(term, Assembly):
            return part_at(term, where.name) is None or self.exists(*moved(term, where))
        return True

    def _at(self, term: At, where: Where) -> bool:
        owner = next(iter(owners(term.region)), None)
        if owner is None or not owner.model.family.is_optional(where.name):
            return True
        return optional_at(term, where) is not None and self.exists(*moved(term, where))
