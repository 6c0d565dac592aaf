"""The weights in what a pickle holds: names to tensors, flat, or below the keys under which
training scripts put them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from ....compiler.checkpoint.catalog import CatalogError
from ....grammar.literals import write_string
from ....grammar.records import dataclass
from ...files.faults import show
from .convert import from_object
from .standins import Foreign, Table, Tensor, Unfamiliar, Value

WRAPPERS = (
    "state_dict", "model", "module", "model_state_dict", "model_state", "net", "network", "params", "weights",
    "ema", "ema_state_dict", "ema_model", "state_dict_ema", "model_ema", "params_ema", "ema_params",
)  # fmt: skip
"""Keys under which training scripts keep the weights, next to the state of an optimizer and the
like."""

_MOST_NAMED = 8
_DEEPEST = 8
_MOST_LOOKED = 4_000_000


@dataclass(frozen=True, slots=True)
class State:
    """`tensors` in the order of the pickle, which were found under `key`, a word for each level.
    `others` are the keys of everything else there."""

    tensors: Mapping[str, Tensor | Foreign]
    others: tuple[str, ...]
    key: tuple[str, ...] = ()


def find_state(value: Value, path: str, key: str | None = None) -> State:
    """The weights in the value of a pickle: under `key`, `a` or `a.b`, where one is asked for.

    Raises CatalogError: E0442 where they are an object and no mapping, E0444 where there is no flat
    mapping of tensors, E0484 where several keys or none would do.
    """
    look = _Look()
    top = _mapping(value)
    if top is None:
        if type(value) is Unfamiliar and look.holds_tensors(value):
            _whole(value, (), path)
        _fail("the pickle holds no mapping from names to tensors", path)
    value = top
    if key is not None:
        return _under(value, key, look, path)
    fitting = [(k, inner) for k, inner in _pairs(value) if type(k) is str and look.is_state(inner)]
    known = [(k, inner) for k, inner in fitting if k in WRAPPERS]
    flat = any(type(inner) in (Tensor, Foreign) for inner in value[1::2])
    chosen = known or ([] if flat else fitting)
    if len(chosen) > 1:
        _ask(chosen, f"the pickle has weights under {len(chosen)} keys, so it is not known which are meant", path)
    if not chosen and not flat:
        for k, inner in _pairs(value):
            if type(inner) is Unfamiliar and not inner.items and look.holds_tensors(inner):
                _whole(inner, (_name(k),), path)
        tables = {id(inner): (_name(k), inner) for k, inner in _pairs(value) if _mapping(inner) is not None}
        deeper = [(f"{k}.{name}", s) for k, inner in tables.values() for name, s in _states(inner, look)]
        if deeper:
            _ask(deeper, "the pickle has its weights deeper than under one key", path)
    if not chosen:
        return _flat(value, (), (), look, path)
    word, inner = chosen[0]
    return _flat(inner, _beside(value, word), (word,), look, path)


def _under(value: Table, key: str, look: _Look, path: str) -> State:
    """The weights under a key that was asked for: one that is called so, or else one level for each
    word of it."""
    at: Value = value
    words: list[str] = []
    others: list[str] = []
    left = key
    while left or not words:
        table = _mapping(at) or Table()
        found = next(((k, v) for k, v in _pairs(table) if k == left), None)
        rest = ""
        if found is None:
            starts = [(k, v) for k, v in _pairs(table) if type(k) is str and k and left.startswith(f"{k}.")]
            found = max(starts, key=lambda each: len(each[0]), default=None)
            rest = left[len(found[0]) + 1 :] if found else ""
        if found is None or len(words) > _DEEPEST:
            there = [(_name(k), v) for k, v in _pairs(value) if look.is_state(v)]
            _ask(there, f"the pickle has no key `{show(key)}`", path)
        others += [".".join((*words, name)) for name in _beside(table, found[0])]
        words.append(found[0])
        at, left = found[1], rest
    if type(at) is Unfamiliar and not at.items and look.holds_tensors(at):
        _whole(at, words, path)
    if not look.is_state(at):
        deeper = [(f"{key}.{name}", s) for name, s in _states(at, look)]
        _ask(deeper, f"what the pickle has under `{show(key)}` is no mapping from names to tensors", path)
    return _flat(at, tuple(others), tuple(words), look, path)


class _Look:
    """Looks through everything once: it can be the value of a million keys."""

    def __init__(self) -> None:
        self._states: dict[int, bool] = {}
        self._holding: dict[int, bool] = {}
        self._left = _MOST_LOOKED

    def is_state(self, value: Value) -> bool:
        """Whether it is a mapping with tensors in it."""
        table = _mapping(value)
        if table is None:
            return False
        if id(value) not in self._states:
            self._states[id(value)] = any(type(inner) in (Tensor, Foreign) for inner in table[1::2])
        return self._states[id(value)]

    def holds_tensors(self, value: Value) -> bool:
        """Whether there are tensors anywhere in an object, or it is one of numbers itself; if that
        takes too long to find out, there may be."""
        if id(value) in self._holding:
            return self._holding[id(value)]
        todo, seen = [value], {id(value)}
        found = False
        while todo and not found:
            each = todo.pop()
            known = self._holding.get(id(each))
            if known is False:
                continue
            found = known is True or type(each) in (Tensor, Foreign) or (type(each) is Unfamiliar and each.numbers)
            inside = (*each.parts, each.items) if type(each) is Unfamiliar else each
            for part in inside if type(each) in (Unfamiliar, Table, tuple) else ():
                self._left -= 1
                found |= self._left < 0
                if id(part) not in seen:
                    seen.add(id(part))
                    todo.append(part)
        for each in seen if not found else (id(value),):
            self._holding[each] = found
        return found


def _flat(mapping: Value, others: Sequence[str], key: tuple[str, ...], look: _Look, path: str) -> State:
    table = _mapping(mapping) or Table()
    tensors: dict[str, Tensor | Foreign] = {}
    beside: list[str] = []
    for name, value in _pairs(table):
        if look.is_state(value):
            inner = [(".".join((*key, _name(k))), v) for k, v in _pairs(table) if look.is_state(v)]
            _ask(inner, f"tensors are nested under `{_name(name)}`", path)
        if type(value) is Unfamiliar and look.holds_tensors(value):
            value = Foreign(f"an object of `{show(value.name)}`")
        if type(value) not in (Tensor, Foreign):
            beside.append(_name(name))
        elif type(name) is not str:
            _fail("a tensor has a name that is no text", path)
        elif name in tensors:
            _fail(f"tensor `{show(name)}` is in the pickle twice", path)
        else:
            tensors[name] = value
    if not tensors:
        _fail("the pickle holds no tensors by name", path)
    return State(tensors, (*others, *beside), key)


def _states(value: Value, look: _Look) -> list[tuple[str, Value]]:
    return [(_name(k), v) for k, v in _pairs(_mapping(value) or Table()) if look.is_state(v)]


def _mapping(value: Value) -> Table | None:
    """What maps names to values there: a dict, or an object of a class of dicts."""
    if type(value) is Unfamiliar:
        return value.items or None
    return value if type(value) is Table else None


def _beside(table: Table, word: str) -> tuple[str, ...]:
    return tuple(_name(k) for k, _ in _pairs(table) if k != word)


def _pairs(table: Table) -> Iterator[tuple[Value, Value]]:
    return zip(table[::2], table[1::2], strict=True)


def _name(key: Value) -> str:
    return show(key) if type(key) is str else str(key) if type(key) is int and abs(key) < 1 << 63 else "…"


def _ask(there: Sequence[tuple[str, Value]], message: str, path: str) -> NoReturn:
    """Asks for a key, of those that there are."""
    listed = [f"`{name}` ({len(_mapping(s) or ()) // 2:,} entries)" for name, s in there[:_MOST_NAMED]]
    more = f" and {len(there) - _MOST_NAMED:,} more" if there[_MOST_NAMED:] else ""
    notes = (f"there are weights under {', '.join(listed)}{more}",) if there else ("there are none under any key",)
    help = (f'name one: `model("…", key={write_string(there[0][0])})`',) if there else ()
    raise CatalogError("E0484", message, file=path, notes=notes, help=help)


def _whole(value: Unfamiliar, key: Sequence[str], path: str) -> NoReturn:
    where = f"under `{'.'.join(key)}` " if key else ""
    message = f"the weights are {where}in an object of `{show(value.name)}`, and not in a mapping from names to tensors"
    raise CatalogError("E0442", message, file=path, notes=("nothing of it was run",), help=from_object(key))


def _fail(message: str, path: str) -> NoReturn:
    help = ("load it with PyTorch, and save the mapping from names to tensors that is in it with safetensors",)
    raise CatalogError("E0444", message, file=path, help=help)
