"""The reducer of every reduction. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ...compiler.ops.table import OPS
from .quantile import Quantile
from .reducer import JOINS, Attributes, Partials, Reducer, rank_of
from .selection import Digits, RankSelection

Factory = Callable[[Attributes, int, int], Reducer]
"""From attributes, elements in the tensor and bits of a number, a reducer for one pass."""


def _partials(accumulator: str) -> Factory:
    return lambda *_: Partials(JOINS[accumulator])


def _magnitudes(attributes: Attributes, numel: int, width: int) -> Reducer:
    return RankSelection(rank_of(attributes, numel), numel, width)


def _digits(attributes: Attributes, _: int, width: int) -> Reducer:
    return Digits(int(attributes["prefix"]), int(attributes["shift"]), width)


def _order(attributes: Attributes, numel: int, width: int) -> Reducer:
    return Quantile(int(attributes["k"]), numel, width)


_FACTORIES: Mapping[str, Factory] = {
    **{accumulator: _partials(accumulator) for accumulator in JOINS},
    "magnitudes": _magnitudes,
    "order": _order,
    "digits": _digits,
}
"""By accumulator."""

REDUCERS: Mapping[str, Factory] = MappingProxyType(
    {name: _FACTORIES[row.accumulator] for name, row in OPS.items() if row.kind == "reduction"}
)
"""For every reduction. Of no elements the k-th smallest is 0; a NaN is the largest to it."""
