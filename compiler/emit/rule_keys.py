"""Other values for the keys of a rule, under which it says for each layer what is wanted."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...grammar.records import dataclass
from ..family.config_rules import Lookup, Rule

_MOST_PAIRED = 96
"""Layers up to which two numbers are sought at once."""


@dataclass(frozen=True, slots=True)
class KeyUses:
    """What the keys of a rule are to the number of a layer: `numbers` hold layers (`i in KEY`),
    `rows` have items that are taken by position (`KEY[i]`, `KEY[i % len(KEY)]`), `steps` are
    reckoned with (`(i + 1) % KEY`)."""

    numbers: tuple[str, ...]
    rows: tuple[str, ...]
    steps: tuple[str, ...]


def key_uses(rule: Rule) -> KeyUses:
    """The keys of a rule that depend on the layer; all others are about the model as a whole.

    >>> from mergec.compiler.family.config_rules import rule
    >>> key_uses(rule("n_experts > 0 and i not in dense and (i + 1) % step == 0"))
    KeyUses(numbers=('dense',), rows=(), steps=('step',))
    """
    numbers: dict[str, None] = {}
    rows: dict[str, None] = {}
    steps: dict[str, None] = {}
    for node in ast.walk(rule.tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            numbers.update(dict.fromkeys(_keys(node.comparators[0]) if _counts_layers(node.left) else ()))
        elif isinstance(node, ast.Subscript) and _counts_layers(node.slice):
            rows.update(dict.fromkeys(_keys(node.value)))
        elif isinstance(node, ast.Compare | ast.BinOp) and _counts_layers(node):
            steps.update(dict.fromkeys(_keys(node)))
    return KeyUses(
        tuple(numbers),
        tuple(key for key in rows if key not in numbers),
        tuple(key for key in steps if key not in numbers and key not in rows),
    )


def fitting(
    rule: Rule,
    said: Lookup,
    wanted: Sequence[Any],
    depth: int,
    fits: Callable[[Mapping[str, Any]], bool],
    fixed: Sequence[str],
) -> Mapping[str, Any] | None:
    """New values for one key of the rule, else for a list of numbers or two numbers at once, for
    which `fits` holds; None where there are none. `wanted` is what each layer is to be, of `depth`
    in all."""
    uses = key_uses(rule)
    lists = [(key, value) for key in uses.numbers for value in _numbers(wanted)]
    lists += [(key, value) for key in uses.rows for value in _rows(said(key), wanted)]
    lists = [(key, value) for key, value in lists if key not in fixed]
    steps = [key for key in uses.steps if key not in fixed and type(said(key)) is int]
    for changes in _changes(lists, steps, said, depth):
        if fits(changes):
            return changes
    return None


def _changes(
    lists: Sequence[tuple[str, Any]], steps: Sequence[str], said: Lookup, depth: int
) -> Iterator[Mapping[str, Any]]:
    yield from ({key: value} for key, value in lists)
    choices = {key: _nearest(said(key), depth + 2) for key in steps}
    yield from ({key: value} for key, values in choices.items() for value in values)
    for key, value in lists:
        for plain in itertools.product((1, 0), repeat=len(steps)):
            yield {key: value, **dict(zip(steps, plain, strict=True))}
    if depth <= _MOST_PAIRED:
        for first, second in itertools.combinations(steps, 2):
            for pair in itertools.product(choices[first], choices[second]):
                yield dict(zip((first, second), pair, strict=True))


def _nearest(now: int, count: int) -> list[int]:
    """The numbers below `count`, those next to what is said now first."""
    return sorted(range(count), key=lambda value: abs(value - now))


def _numbers(wanted: Sequence[Any]) -> Iterator[list[int]]:
    """The layers of each kind that is wanted, and none."""
    seen: list[Any] = []
    for value in wanted:
        if value not in seen:
            seen.append(value)
            yield [layer for layer, each in enumerate(wanted) if each == value]
    yield []


def _rows(now: Any, wanted: Sequence[Any]) -> Iterator[Any]:
    """A list of what is wanted, in the form of the one there is: plain, or as runs of a group
    (`[[["global", "local"], 12]]`)."""
    if isinstance(now, str):
        if all(isinstance(each, str) and len(each) == 1 for each in wanted):
            yield "".join(wanted)
    elif isinstance(now, list) and now and isinstance(now[0], list):
        yield [[list(wanted), 1]]
    else:
        yield list(wanted)


def _counts_layers(node: ast.expr) -> bool:
    """Whether the number of the layer is part of an expression."""
    return any(isinstance(each, ast.Name) and each.id == "i" for each in ast.walk(node))


def _keys(node: ast.expr) -> list[str]:
    """The keys in an expression, dotted."""
    if isinstance(node, ast.Name | ast.Attribute):
        text = ast.unparse(node)
        return [] if text in ("i", "n") else [text]
    if isinstance(node, ast.Call):
        return [key for part in node.args for key in _keys(part)]
    return [key for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr) for key in _keys(part)]
