"""What a config makes transformers expect: which tensors, how many layers and experts, what shapes;
and where a set of tensors is otherwise.

It needs names and shapes alone. Tensors are compared by pattern and layer, so that the cost grows
with the names, and not with layers times experts times patterns.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...grammar.records import dataclass
from .config_keys import config_value, place_of
from .config_rules import Lookup, Undecided, rule

_UNKNOWN = "?"
_MOST_LAYERS = 10_000

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ExpectedTensor:
    """`lengths`: a rule an axis, `?` where none is known; `condition`: a rule for whether it is
    there, None where it always is."""

    lengths: tuple[str, ...]
    condition: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What an architecture expects, as rules over its config (`config_rules.py`).

    `runs`: how many there are of what is numbered, by the name before the number
    (`model.layers`, `model.layers.{i}.mlp.experts`). `tensors` by pattern: `{i}` is the number of
    the first run, `{e}` of one inside. `defaults` and `derived`: what silence about a key means;
    of the `unsaid` nothing is known. `aliases`: by which other names a config may say a key.
    `lists`: lists with an item a layer, by the rule for an item and that for their length.
    """

    runs: Mapping[str, str]
    tensors: Mapping[str, ExpectedTensor]
    defaults: Mapping[str, Any]
    derived: Mapping[str, str]
    unsaid: frozenset[str]
    aliases: Mapping[str, Sequence[str]]
    lists: Mapping[str, tuple[str, str]]

    def lookup(self, config: Mapping[str, Any]) -> Lookup:
        """A config with what its silence means. Raises KeyError for what is not known."""

        def value(key: str) -> Any:
            names = (key, *self.aliases.get(key, ()))
            said = next((v for name in names if (v := config_value(config, name)) is not None), None)
            if said is not None:
                return said
            if key in self.derived:
                return rule(self.derived[key]).value(value)
            if key in self.lists:
                item, length = self.lists[key]
                n = rule(length).value(value)
                return [rule(item).value(value, i=i, n=n) for i in range(min(n, _MOST_LAYERS))]
            target, inner = place_of(config, key)
            if isinstance(target, Mapping) and inner in target:
                return None
            if key in self.unsaid:
                raise KeyError(key)
            return self.defaults.get(key)

        return value


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that a config expects otherwise than it is.

    `of` is a pattern, or the name of a run for a count; `layer` the first that it is so in, None
    outside of layers. `said` and `found` are counts or shapes; None for a tensor that is not there,
    or that is not expected. `keys` are those that it follows from, `rule` what decides.
    """

    of: str
    layer: int | None
    said: int | tuple[int | None, ...] | None
    found: int | Shape | None
    keys: tuple[str, ...] = ()
    rule: str | None = None

    @property
    def name(self) -> str:
        return self.of if self.layer is None else self.of.replace("{i}", str(self.layer)).replace("{e}", "0")


def section_of(architecture: str) -> Mapping[str, Any] | None:
    """The section of an architecture in `expectations.toml`, which `tools/model_types` generates;
    None where it has none.

    The file is not parsed: a section is found by its heading and ends at the next empty line.
    """
    text = _text()
    at = text.find(f"\n\n[{architecture}]\n")
    if at < 0 or not architecture.isidentifier():
        return None
    end = text.find("\n\n", at + 2)
    data: Mapping[str, Mapping[str, Any]] = tomllib.loads(text[at:] if end < 0 else text[at:end])
    return data[architecture]


@functools.cache
def _text() -> str:
    return Path(__file__).with_name("expectations.toml").read_text("utf-8")


def expected_of(entry: Mapping[str, Any]) -> Expected:
    """What an entry's data says is expected."""
    return Expected(
        MappingProxyType(dict(entry.get("runs", {}))),
        MappingProxyType({name: _tensor(said) for name, said in entry["tensors"].items()}),
        MappingProxyType(dict(entry.get("defaults", {}))),
        MappingProxyType(dict(entry.get("derived", {}))),
        frozenset(entry.get("unsaid", ())),
        MappingProxyType(dict(entry.get("aliases", {}))),
        MappingProxyType(
            {
                fact["items"]: (fact["rule"], entry["runs"][head])
                for head, facts in entry.get("facts", {}).items()
                for fact in facts
                if "items" in fact and "rule" in fact
            }
        ),
    )


def _tensor(said: Any) -> ExpectedTensor:
    shape, condition = (said["shape"], said.get("if")) if isinstance(said, Mapping) else (said, None)
    return ExpectedTensor(tuple(length.strip() for length in shape.split(",")) if shape else (), condition)


def differences(
    expected: Expected, config: Mapping[str, Any], tensors: Iterable[tuple[str, Shape]]
) -> Iterator[Difference]:
    """Where tensors are otherwise than a config expects: counts first, then shapes and tensors that
    are missing, then those that nothing expects. What a rule can't decide is passed over."""
    said = expected.lookup(config)
    found, counts = _read(expected, tensors)
    depths: dict[str, int] = {}
    for head, text in expected.runs.items():
        for layer, count in sorted(counts.get(head, {}).items(), key=lambda each: each[0] or 0):
            outer = head.partition(".{i}")[0] if layer is not None else None
            if outer is not None and layer is not None and layer >= depths.get(outer, 0):
                continue
            try:
                number = rule(text).value(said, i=layer, n=None if outer is None else depths.get(outer))
            except Undecided:
                number = count
            if layer is None:
                depths[head] = min(count, number) if isinstance(number, int) else count
            if number != count:
                yield Difference(head, layer, number, count, rule(text).keys)
                break
    for text, tensor in expected.tensors.items():
        inside = counts.get(text.partition(".{e}")[0], {}) if "{e}" in text else {}
        yield from _compared(text, tensor, found.pop(text, {}), said, depths, inside)
    for text, at in found.items():
        layer = min((i for i in at if i is not None), default=None)
        if layer is None or layer < depths.get(text.partition(".{i}")[0], 0):
            yield Difference(text, layer, None, at[layer].shape)


@dataclass(slots=True, eq=False)
class _Found:
    """A pattern in one layer: the shape, and of how many of what is numbered inside."""

    shape: Shape
    count: int = 0
    others: list[Shape] = field(default_factory=list)


def _compared(
    text: str,
    tensor: ExpectedTensor,
    at: Mapping[int | None, _Found],
    said: Lookup,
    depths: Mapping[str, int],
    inside: Mapping[int | None, int],
) -> Iterator[Difference]:
    """The first layer in which a pattern is otherwise, and the first in which its shape is.

    `inside`: how many there are, by layer, of what is numbered in a layer.
    """
    head = text.partition(".{i}")[0] if "{i}" in text else None
    layers: Sequence[int | None] = [None] if head is None else range(depths.get(head, 0))
    n = None if head is None else depths.get(head)
    condition = rule(tensor.condition) if tensor.condition else None
    reported = False
    for i in layers:
        try:
            there = condition is None or bool(condition.value(said, i=i, n=n))
        except Undecided:
            return
        have = at.get(i)
        if have is not None and there and have.count != inside.get(i, have.count):
            have = None  # one of several is missing
        keys = condition.keys if condition is not None else ()
        if there is not (have is not None):
            if not reported:
                shape = _shape(tensor, said, i, n) if there else None
                yield Difference(text, i, shape, have.shape if have else None, keys, tensor.condition)
            reported = True
        elif have is not None:
            shape = _shape(tensor, said, i, n)
            wrong = next((s for s in (have.shape, *have.others) if not _fits(shape, s)), None)
            if wrong is not None:
                axis = next((k for k, (x, y) in enumerate(zip(shape, wrong)) if x is not None and x != y), 0)
                read = rule(tensor.lengths[axis]).keys if shape and tensor.lengths[axis] != _UNKNOWN else ()
                yield Difference(text, i, shape, wrong, read, tensor.lengths[axis] if shape else None)
                return


def _shape(tensor: ExpectedTensor, said: Lookup, i: int | None, n: int | None) -> tuple[int | None, ...]:
    out: list[int | None] = []
    for text in tensor.lengths:
        try:
            value = None if text == _UNKNOWN else rule(text).value(said, i=i, n=n)
        except Undecided:
            value = None
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        out.append(int(value) if whole and value is not None else None)
    return tuple(out)


def _fits(shape: tuple[int | None, ...], found: Shape) -> bool:
    return len(shape) == len(found) and all(x is None or x == y for x, y in zip(shape, found, strict=True))


def _read(
    expected: Expected, tensors: Iterable[tuple[str, Shape]]
) -> tuple[dict[str, dict[int | None, _Found]], dict[str, dict[int | None, int]]]:
    """Tensors by pattern and layer; and how many there are of each run, by the layer that it is
    in."""
    found: dict[str, dict[int | None, _Found]] = {}
    counts: dict[str, dict[int | None, int]] = {}
    for name, shape in tensors:
        parts: list[str] = []
        layer: int | None = None
        inside = False
        for part in name.split("."):
            if not inside and part.isdigit() and part.isascii() and len(part) < 10:
                head = ".".join(parts)
                if head in expected.runs:
                    number = int(part)
                    each = counts.setdefault(head, {})
                    each[layer] = max(each.get(layer, 0), number + 1)
                    parts.append("{i}" if layer is None else "{e}")
                    inside = layer is not None
                    layer = number if layer is None else layer
                    continue
            parts.append(part)
        have = found.setdefault(".".join(parts), {}).setdefault(layer, _Found(shape))
        have.count += 1
        if have.shape != shape and shape not in have.others:
            have.others.append(shape)
    return found, counts
