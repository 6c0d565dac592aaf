"""The plan as JSON text, and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ...grammar.records import dataclass
from . import plan as parts
from .plan import Pass, Plan

FORMAT = 4
"""Of the JSON text; another number means that one can't be read as the other."""

_SHARED = frozenset({"code", "reductions", "scalars"})
"""What passes over tensors that are computed alike have in common: ten times as much as what they
don't."""

_BYTES = "latin-1"
"""Of bytes as text, a character each: most of them are."""


def to_json(plan: Plan) -> str:
    """The plan as JSON text; `from_json` gives back an equal plan.

    `shared` lists code, reductions and scalars of passes; a pass says which of them are its by
    their places there.
    """
    shared = _Shared({}, [])
    whole = _encode(plan, shared)
    return json.dumps({"is": "Plan", "format": FORMAT, "shared": shared.encoded} | whole)


def from_json(text: str) -> Plan:
    """The plan that `to_json` wrote. Raises ValueError on anything else."""
    data = json.loads(text)
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ValueError(f"not a plan of format {FORMAT}")
    classes = {k: v for k, v in vars(parts).items() if isinstance(v, type) and dataclasses.is_dataclass(v)}
    shared = [_decode(each, classes, []) for each in data.pop("shared", ())]
    plan = _decode(data, classes, shared)
    if not isinstance(plan, Plan):
        raise ValueError("not a plan")
    return plan


@dataclass(frozen=True, slots=True)
class _Shared:
    """Places by identity, and what has them. The plan holds on to all of them meanwhile."""

    places: dict[int, int]
    encoded: list[Any]

    def place(self, value: Any) -> int:
        if id(value) not in self.places:
            self.places[id(value)] = len(self.encoded)
            self.encoded.append(_encode(value, self))
        return self.places[id(value)]


def _encode(value: Any, shared: _Shared) -> Any:
    kind = type(value)
    if kind is tuple:
        return [_encode(v, shared) for v in value]
    if kind is bytes:
        return {"is": "bytes", "text": value.decode(_BYTES)}
    names = getattr(kind, "__match_args__", None)
    if names is None:
        return value
    found: dict[str, Any] = {"is": kind.__name__}
    for name in names:
        part = getattr(value, name)
        found[name] = shared.place(part) if kind is Pass and name in _SHARED else _encode(part, shared)
    return found


def _decode(value: Any, classes: Mapping[str, type], shared: list[Any]) -> Any:
    if isinstance(value, dict):
        name = value.pop("is", "")
        if name == "bytes":
            return value["text"].encode(_BYTES)
        kind = classes.get(name)
        if kind is None:
            raise ValueError("unknown part of a plan")
        found = {k: _decode(v, classes, shared) for k, v in value.items()}
        if kind is Pass:
            found |= {k: shared[found[k]] for k in _SHARED}
        return kind(**found)
    if isinstance(value, list):
        return tuple(_decode(v, classes, shared) for v in value)
    return value
