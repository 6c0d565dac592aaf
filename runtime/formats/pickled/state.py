"""The weights in what a pickle holds: names to tensors, flat, or one level down where training
scripts put them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn

from ....compiler.checkpoint.catalog import CatalogError
from ....grammar.records import dataclass
from ...files.faults import show
from .convert import CONVERT
from .standins import Foreign, Table, Tensor, Value

WRAPPERS = ("state_dict", "model", "module")
"""Keys under which training scripts keep the weights, next to the state of an optimizer and the
like."""


@dataclass(frozen=True, slots=True)
class State:
    """`tensors` in the order of the pickle. `others` are the keys of everything else there."""

    tensors: Mapping[str, Tensor | Foreign]
    others: tuple[str, ...]


def find_state(value: Value, path: str) -> State:
    """The weights in the value of a pickle. Raises CatalogError: E0444 where there is no flat
    mapping of tensors."""
    if type(value) is not Table:
        _fail("the pickle holds no mapping from names to tensors", path)
    look = _Look()
    wrapped = [(key, inner) for key, inner in _pairs(value) if key in WRAPPERS and look.holds_tensors(inner)]
    if len(wrapped) > 1:
        keys = " and ".join(f"`{key}`" for key, _ in wrapped[:2])
        _fail(f"the pickle has tensors under both {keys}, so it is not known which are the weights", path)
    if not wrapped:
        return _flat(value, (), look, path)
    key, inner = wrapped[0]
    return _flat(inner, tuple(_name(k) for k, _ in _pairs(value) if k is not key), look, path)


class _Look:
    """Looks through each table once: one can be the value of a million keys."""

    def __init__(self) -> None:
        self._found: dict[int, bool] = {}

    def holds_tensors(self, value: Value) -> bool:
        if type(value) is not Table:
            return False
        if id(value) not in self._found:
            self._found[id(value)] = any(type(inner) in (Tensor, Foreign) for inner in value[1::2])
        return self._found[id(value)]


def _flat(table: Table, others: tuple[str, ...], look: _Look, path: str) -> State:
    tensors: dict[str, Tensor | Foreign] = {}
    beside: list[str] = []
    for key, value in _pairs(table):
        if look.holds_tensors(value):
            _fail(f"tensors are nested under `{_name(key)}`", path)
        if type(value) not in (Tensor, Foreign):
            beside.append(_name(key))
        elif type(key) is not str:
            _fail("a tensor has a name that is no text", path)
        elif key in tensors:
            _fail(f"tensor `{show(key)}` is in the pickle twice", path)
        else:
            tensors[key] = value
    if not tensors:
        _fail("the pickle holds no tensors by name", path)
    return State(tensors, (*others, *beside))


def _pairs(table: Table) -> Iterator[tuple[Value, Value]]:
    return zip(table[::2], table[1::2], strict=True)


def _name(key: Value) -> str:
    return show(key) if type(key) is str else str(key) if type(key) is int and abs(key) < 1 << 63 else "…"


def _fail(message: str, path: str) -> NoReturn:
    raise CatalogError("E0444", message, file=path, help=CONVERT)
