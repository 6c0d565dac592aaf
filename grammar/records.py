"""Data classes that are made quickly.

`dataclasses` of Python 3.11 and 3.12 compiles six functions for a frozen class, one at a time. That
was half of all that `mergec --check` waited for: there are some 170 classes on its way. Here one
function is compiled, `__init__`, which everybody calls; `==` and `hash` are compiled at their first
use, and what is rarely used is shared. What comes out is a data class in all that `dataclasses`
offers (`fields`, `replace`, `asdict`, patterns), and type checkers see the decorator that they
know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

_T = TypeVar("_T")

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, slots: bool, frozen: bool = False, eq: bool = True) -> Callable[[type[_T]], type[_T]]:
        """As `dataclasses.dataclass` with the same arguments; `slots` must be true."""
        assert slots, "records have slots"
        return lambda cls: _made(cls, frozen, eq)


def _made(cls: type[_T], frozen: bool, eq: bool) -> type[_T]:
    given = dict(cls.__dict__)
    if not given.get("__doc__"):
        # the library would look for a signature, which takes as long as all else here
        cls.__doc__ = f"{cls.__name__}({', '.join(given.get('__annotations__', ()))})"
    made = dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=True)
    fields = dataclasses.fields(made)  # type: ignore[arg-type]
    _put(made, "__init__", _init(made, fields, frozen))
    if "__repr__" not in given:
        _put(made, "__repr__", _repr)
    if eq:
        names = [field.name for field in fields if field.compare]
        if "__eq__" not in given:
            _put(made, "__eq__", _at_first_use(made, "__eq__", _EQ, names))
        if given.get("__hash__") is None:
            _put(made, "__hash__", _at_first_use(made, "__hash__", _HASH, names) if frozen else None)
    if frozen:
        for name, method in _FROZEN.items():
            _put(made, name, method)
    return made


def _put(cls: type, name: str, value: object) -> None:
    setattr(cls, name, value)


def _init(cls: type, fields: tuple[dataclasses.Field[Any], ...], frozen: bool) -> Callable[..., None]:
    """`__init__` of a class; that of a frozen one stores through the slots, past the refusal to set
    anything."""
    known: dict[str, Any] = {"__name__": cls.__module__, "__missing": dataclasses.MISSING}
    head, body = ["self"], []
    for field in fields:
        name, value = field.name, field.name
        if field.default is not dataclasses.MISSING:
            known[f"__default_{name}"] = field.default
            value = f"__default_{name}"
        elif field.default_factory is not dataclasses.MISSING:
            known[f"__new_{name}"] = field.default_factory
            value = f"__new_{name}()"
        elif not field.init:
            continue
        if field.init:
            with_new = value.endswith("()")
            head.append(name if value == name else f"{name}=__missing" if with_new else f"{name}={value}")
            value = f"{value} if {name} is __missing else {name}" if with_new else name
        known[f"__set_{name}"] = getattr(cls, name).__set__
        body.append(f" __set_{name}(self, {value})" if frozen else f" self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append(" self.__post_init__()")
    lines = [f"def __init__({', '.join(head)}):", *(body or [" pass"])]
    made = _compiled(cls, "__init__", "\n".join(lines), known)
    made.__annotations__ = {field.name: field.type for field in fields if field.init} | {"return": None}
    return made


_EQ = """def __eq__(self, other):
 if other.__class__ is self.__class__:
  return ({self}) == ({other})
 return NotImplemented
"""
_HASH = """def __hash__(self):
 return hash(({self}))
"""


def _at_first_use(cls: type, name: str, text: str, names: list[str]) -> Callable[..., Any]:
    """A method that puts the one made of `text` in its own place when it is called."""

    def method(*arguments: Any) -> Any:
        values = {each: "".join(f"{each}.{name}, " for name in names) for each in ("self", "other")}
        made = _compiled(cls, name, text.format(**values), {"__name__": cls.__module__})
        _put(cls, name, made)
        return made(*arguments)

    return method


def _compiled(cls: type, name: str, text: str, known: dict[str, Any]) -> Callable[..., Any]:
    exec(text, known)
    made: Callable[..., Any] = known[name]
    made.__qualname__ = f"{cls.__qualname__}.{name}"
    return made


def _repr(self: Any) -> str:
    shown = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in shown)})"


def _set(_self: Any, name: str, _value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(_self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)


_FROZEN = {"__setattr__": _set, "__delattr__": _delete, "__getstate__": _state, "__setstate__": _restore}
