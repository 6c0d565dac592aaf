"""The reducer of every reduction. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .quantile import Quantile
from .reducer import JOINS, Attributes, Partials, Reducer, rank_of
from .selection import Digits, Selection

Maker = Callable[[Attributes, int, int], Reducer]
"""From attributes, elements in the tensor and bits of a number, a reducer for one pass."""


def _partials(op: str) -> Maker:
    return lambda *_: Partials(JOINS[op])


def _threshold(attributes: Attributes, numel: int, width: int) -> Reducer:
    return Selection(rank_of(attributes, numel), numel, width)


def _digits(attributes: Attributes, _: int, width: int) -> Reducer:
    return Digits(int(attributes["prefix"]), int(attributes["shift"]), width)


def _kth_smallest(attributes: Attributes, numel: int, width: int) -> Reducer:
    return Quantile(int(attributes["k"]), numel, width)


REDUCERS: Mapping[str, Maker] = MappingProxyType(
    {
        **{op: _partials(op) for op in JOINS},
        "threshold": _threshold,
        "threshold_at": _threshold,
        "kth_smallest": _kth_smallest,
        "digits": _digits,
    }
)
"""For every reduction. Of no elements the k-th smallest is 0; a NaN is the largest to it."""
