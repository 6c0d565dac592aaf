"""Our data classes are those of the standard library, made faster."""

# ruff: noqa: ARG005
from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mergec.grammar import records

ROOT = Path(records.__file__).parent.parent


def shapes(dataclass: Callable[..., Any]) -> tuple[Any, Any, Any, Any]:
    """The same four classes, made by either."""

    @dataclass(frozen=True, slots=True)
    class Frozen:
        """Of all kinds of fields."""

        a: int
        missing: str = "b"
        items: list[int] = dataclasses.field(default_factory=list)
        length: int = dataclasses.field(init=False, repr=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "length", len(self.items))

    @dataclass(frozen=True, slots=True, eq=False)
    class Same:
        a: int

    @dataclass(slots=True)
    class Open:
        a: int
        b: tuple[int, ...] = ()

    @dataclass(frozen=True, slots=True)
    class Empty:
        def __hash__(self) -> int:
            return 7

        def __repr__(self) -> str:
            return "nothing"

    return Frozen, Same, Open, Empty


OURS, THEIRS = shapes(records.dataclass), shapes(dataclasses.dataclass)


def told(act: Callable[[], object]) -> object:
    """What comes of an act, in words."""
    try:
        return repr(act()).replace("records", "dataclasses")
    except Exception as error:
        return type(error).__name__, str(error)


# f, s, o and e are the classes of `shapes`, in its order; an act uses some of them.
ACTS: tuple[Callable[..., object], ...] = (
    lambda f, s, o, e: (f(1), f(1, "c"), f(1, items=[2]), o(1), o(1, (2,)), e()),
    lambda f, s, o, e: f(1, items=[2]).length,
    lambda f, s, o, e: (f(1) == f(1), f(1) == f(2), f(1) == 1, f(1) != f(1), f(1).__eq__(1)),
    lambda f, s, o, e: (s(1) == s(1), o(1) == o(1), o(1) == o(2), e() == e(), f(1) == o(1)),
    lambda f, s, o, e: f(1).items is f(1).items,
    lambda f, s, o, e: hash(o(1)),
    lambda f, s, o, e: hash(f(1)),
    lambda f, s, o, e: (hash(e()), hash(s(1)) == hash(s(1))),
    lambda f, s, o, e: f(),
    lambda f, s, o, e: f(1, "b", [], 3),
    lambda f, s, o, e: f(1, z=2),
    lambda f, s, o, e: setattr(f(1), "a", 2),
    lambda f, s, o, e: delattr(f(1), "a"),
    lambda f, s, o, e: setattr(o(1), "z", 2),
    lambda f, s, o, e: dataclasses.replace(f(1), a=5),
    lambda f, s, o, e: dataclasses.replace(f(1), length=5),
    lambda f, s, o, e: (dataclasses.asdict(f(1)), dataclasses.astuple(o(1))),
    lambda f, s, o, e: [(x.name, x.type, x.init) for x in dataclasses.fields(f)],
    lambda f, s, o, e: (f.__match_args__, f.__slots__, f.__doc__, f.__name__, f.__init__.__name__),
    lambda f, s, o, e: [
        [(p.name, p.annotation, p.kind) for p in inspect.signature(x).parameters.values()] for x in (f, s, o, e)
    ],
    lambda f, s, o, e: (copy.copy(f(1)), copy.deepcopy(f(1, items=[2])), copy.deepcopy(f(1, items=[2])).length),
    lambda f, s, o, e: (copy.copy(f(1)) == f(1), copy.copy(o(1)) == o(1)),
)


@pytest.mark.parametrize("act", ACTS)
def test_both_do_the_same(act: Callable[..., object]) -> None:
    assert told(lambda: act(*OURS)) == told(lambda: act(*THEIRS))


@records.dataclass(frozen=True, slots=True)
class Kept:
    """One that can be found by its name."""

    a: int


def test_frozen_ones_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Kept(3))) == Kept(3)


def test_equal_ones_are_one_key() -> None:
    assert {Kept(1): "x"}[Kept(1)] == "x"
    assert hash(Kept(1)) == hash(Kept(1)) == hash((1,))


def test_no_module_makes_them_the_slow_way() -> None:
    slow = [
        str(path.relative_to(ROOT))
        for folder in ("grammar", "compiler", "runtime", "cli")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "records.py"
        and any(
            line.startswith("from dataclasses import ") and "dataclass" in line.split(" import ")[1].split(", ")
            for line in path.read_text("utf-8").splitlines()
        )
    ]
    assert not slow, "`dataclass` comes from grammar/records.py, which takes a seventh of the time"
