"""Patterns of tensor names: which of their numbers count the layers or experts of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from mergec.grammar.records import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A pattern in one probe: the shape for each number of its first variable (None where it has
    none). None for a shape: it differs over the second variable."""

    at: Mapping[int | None, Shape | None]


def runs_of(names: Sequence[Iterable[str]]) -> set[str]:
    """Prefixes below which the numbers always run from 0 on, and up to different ones:
    `model.layers`, `model.layers.{i}.mlp.experts`."""
    runs: set[str] = set()
    for _ in range(3):
        found: dict[str, list[set[tuple[tuple[int, ...], int]]]] = {}
        for k, each in enumerate(names):
            for name in each:
                head, numbers, number = _head(name, runs)
                if head is not None:
                    found.setdefault(head, [set() for _ in names])[k].add((numbers, number))
        new = {head for head, sets in found.items() if _runs(sets)}
        if not new:
            return runs
        runs |= new
    return runs


def _head(name: str, runs: set[str]) -> tuple[str | None, tuple[int, ...], int]:
    """The prefix before the first number that no run counts, with the numbers before it."""
    prefix: list[str] = []
    numbers: list[int] = []
    for part in name.split("."):
        if part.isdigit():
            head = ".".join(prefix)
            if head not in runs:
                return head, tuple(numbers), int(part)
            numbers.append(int(part))
            prefix.append("{i}" if len(numbers) == 1 else "{e}")
        else:
            prefix.append(part)
    return None, (), 0


def _runs(sets: list[set[tuple[tuple[int, ...], int]]]) -> bool:
    counts = set()
    for each in sets:
        groups: dict[tuple[int, ...], set[int]] = {}
        for numbers, number in each:
            if len(numbers) > 1:
                return False
            groups.setdefault(numbers, set()).add(number)
        for group in groups.values():
            if group != set(range(len(group))):
                return False
            counts.add(len(group))
    return len(counts) > 1


def pattern_of(name: str, runs: set[str]) -> tuple[str, tuple[int, ...]]:
    """A name with its numbers of layers as `{i}`, those below as `{e}`; and those numbers."""
    prefix: list[str] = []
    numbers: list[int] = []
    for part in name.split("."):
        if part.isdigit() and ".".join(prefix) in runs:
            numbers.append(int(part))
            prefix.append("{i}" if len(numbers) == 1 else "{e}")
        else:
            prefix.append(part)
    return ".".join(prefix), tuple(numbers)


def read(tensors: Mapping[str, Shape], runs: set[str]) -> tuple[dict[str, Seen], dict[str, dict[int | None, int]]]:
    """The patterns of a model, and how far each run goes, by the number of the layer it is in."""
    found: dict[str, dict[int | None, Shape | None]] = {}
    inner: dict[str, dict[int | None, int]] = {}
    counts: dict[str, dict[int | None, int]] = {}
    for name, shape in tensors.items():
        text, numbers = pattern_of(name, runs)
        first = numbers[0] if numbers else None
        at = found.setdefault(text, {})
        at[first] = shape if first not in at or at[first] == shape else None
        if len(numbers) > 1:
            inner.setdefault(text, {}).setdefault(first, 0)
            inner[text][first] += 1
        for variable, number, above in (("{i}", numbers[:1], None), ("{e}", numbers[1:2], first)):
            if number:
                head = re.split(re.escape(f".{variable}"), text, maxsplit=1)[0]
                each = counts.setdefault(head, {})
                each[above] = max(each.get(above, 0), number[0] + 1)
    for text, sizes in inner.items():
        head = text.split(".{e}", 1)[0]
        for first, size in sizes.items():
            if size != counts[head][first]:
                found[text][first] = None  # not all of them have it
    return {text: Seen(at) for text, at in found.items()}, counts
