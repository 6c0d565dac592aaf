"""Values and functions of the language for its reference interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from reference_places import EMBED, HEAD, Coordinate, Names, Refused, Unjudged

if TYPE_CHECKING:
    from reference_evaluation import Evaluation


@dataclass(frozen=True)
class Region:
    """A region at the tensor that is being made. `there` is false where no model that it is made of
    has the tensor: then it is zero."""

    value: Any
    there: bool = True


@dataclass(frozen=True)
class Where:
    """The tensor that is being made, under the names of the model whose layers count."""

    name: str
    coordinate: Coordinate
    counts: tuple[int, ...]
    space: Names
    output: str

    @property
    def depth(self) -> float:
        layer = self.space.layer(self.name)
        if layer is None:
            return 0.0 if self.name == EMBED else 1.0
        return layer / (self.space.depth - 1) if self.space.depth > 1 else 1.0

    @property
    def layer(self) -> int:
        layer = self.space.layer(self.name)
        if layer is not None:
            return layer
        return 0 if self.depth == 0 else self.space.depth - 1


def _spread(values: Sequence[Any]) -> list[Any]:
    return list(values[0]) if len(values) == 1 and isinstance(values[0], tuple) else list(values)


def _fold(op: Callable[[Any, Any], Any], start: Any | None) -> Callable[..., Any]:
    def run(self: Evaluation, positional: list[Any], named: dict[str, Any], where: Where | None) -> Any:
        values = _spread(positional)
        if named or (not values and start is None):
            raise Refused("nothing to choose from")
        out = values[0] if values else start
        for each in values[1:]:
            if all(isinstance(v, bool | int | float) for v in (out, each)):
                out = op(out, each)
                out = out.item() if isinstance(out, np.generic) else out
            else:
                one, other = self.region(out, where), self.region(each, where)
                there = any(r.there for r, v in ((one, out), (other, each)) if not isinstance(v, bool | int | float))
                out = Region(self._elementwise(op, one.value, other.value), there)
        return out

    return run


def _unary(function: Callable[[Any], Any]) -> Callable[..., Any]:
    def run(self: Evaluation, positional: list[Any], named: dict[str, Any], where: Where | None) -> Any:
        if named or len(positional) != 1:
            raise Refused("one argument")
        (x,) = positional
        if isinstance(x, bool | int | float):
            try:
                return float(function(float(x)))
            except ValueError:
                raise Refused("no real number") from None
        held = self.region(x, where)
        if function is np.sign and np.any(np.abs(held.value) <= 1e-5 * self.magnitude):
            self.sure = False
        return Region(self._elementwise(function, held.value), held.there)

    return run


def _one_number(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: Evaluation, positional: list[Any], named: dict[str, Any], where: Where | None) -> Any:
        held = [self.region(x, where) for x in positional]
        if named or any(isinstance(x, bool | int | float) for x in positional):
            raise Refused("tensors")
        if any(h.there and np.ndim(h.value) == 0 for h in held):
            raise Unjudged("a plain number as a model")
        value = function(*(np.asarray(h.value) for h in held))
        self.met(value)
        return Region(float(value), any(h.there for h in held))

    return run


def _where(self: Evaluation, positional: list[Any], named: dict[str, Any], where: Where | None) -> Any:
    if named or len(positional) != 3:
        raise Refused("three arguments")
    held = [self.region(x, where) for x in positional]
    there = any(h.there for h, x in zip(held, positional, strict=True) if not isinstance(x, bool | int | float))
    if all(isinstance(x, bool | int | float) for x in positional):
        return positional[1] if positional[0] else positional[2]
    value = self._elementwise(lambda c, x, y: np.where(c != 0, x, y), *(h.value for h in held))
    return Region(value, there)


def _curve(_self: Evaluation, positional: list[Any], _named: dict[str, Any], where: Where | None) -> Any:
    (points,) = positional
    if where is None:
        raise Refused("it varies")
    return float(np.interp(where.depth * (len(points) - 1), range(len(points)), points))


def _each(_self: Evaluation, positional: list[Any], _named: dict[str, Any], _where: Where | None) -> Any:
    value, models = positional
    if not isinstance(value, tuple):
        return (value,) * len(models)
    if len(value) != len(models):
        raise Refused("a list of another length")
    return value


def _zip(_self: Evaluation, positional: list[Any], _named: dict[str, Any], _where: Where | None) -> Any:
    if len({len(x) for x in positional}) > 1:
        raise Refused("lists of unequal length")
    return tuple(zip(*positional, strict=True))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": _unary(np.abs),
    "sign": _unary(np.sign),
    "tanh": _unary(np.tanh),
    "sum": _fold(lambda a, b: a + b, 0),
    "min": _fold(np.minimum, None),
    "max": _fold(np.maximum, None),
    "where": _where,
    "total": _one_number(np.sum),
    "dot": _one_number(lambda x, y: np.sum(x * y)),
    "largest": _one_number(np.max),
    "curve": _curve,
    "each": _each,
    "zip": _zip,
    "len": lambda _self, positional, _named, _where: len(positional[0]),
    "range": lambda _self, positional, _named, _where: tuple(range(positional[0])),
    "in_layers": lambda _self, _positional, _named, where: where.space.layer(where.name) is not None,
    "has_vocabulary": lambda _self, _positional, _named, where: where.name in (EMBED, HEAD),
}
