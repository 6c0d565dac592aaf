"""Families of models: what their tensors are called, which are tied, how deep their stacks are.

The table itself is data, `families/*.toml`, one entry per file; a family that is not in it is
inferred from the tensor names (`infer.py`). All names here are CANONICAL: those under which current
transformers stores the family. The names of other exporters are brought to these by the family's
layouts (`layouts.py`).
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...grammar.records import dataclass
from .expected import Expected, entry_of, expected_of
from .infer import Entry, infer
from .patterns import any_of, kind_of, pattern, split


@dataclass(frozen=True, slots=True)
class LayerFact:
    """One thing that the config settles for each layer by itself, such as what it attends to.

    `items` is the key of a list with an item per layer, None where the type has none; `rule` says
    what holds where there is no such list (`config_rules.py`), None where that is not known.
    """

    items: str | None
    rule: str | None


@dataclass(frozen=True, slots=True)
class LayerStack:
    """A run of numbered layers.

    `name` is the place (`layers`, `encoder.layers`), `prefix` ends in the number
    (`model.layers.{i}`), `depth_key` is the config's key for its length, dotted where nested; None
    where none is known. `extra_key` is its key for a number of layers at the end that `depth_key`
    does not count, which a checkpoint may hold or not. `facts`: in what its layers may differ from
    each other by the config.
    """

    name: str
    prefix: str
    depth_key: str | None
    extra_key: str | None = None
    facts: tuple[LayerFact, ...] = ()
    head: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", self.prefix.removesuffix("{i}"))


@dataclass(frozen=True, slots=True)
class TieRule:
    """Tensors that may share storage: the loader takes `aliases` from `primary`, under which they
    are stored.

    Tied where the config's `config_key` says so, `default` where it is silent; always where
    `config_key` is None.
    """

    primary: str
    aliases: tuple[str, ...]
    config_key: str | None
    default: bool


@dataclass(frozen=True, slots=True)
class LayoutRule:
    """A stored tensor is the canonical tensors `parts`, one after the other along its first axis,
    in equal shares.

    With `over` the stored tensor has a leading axis, numbered by that variable, and for each number
    the parts follow each other along the next axis. All are patterns: `{i}` a number, `*` any text
    (with a single part only).
    """

    stored: str
    parts: tuple[str, ...]
    over: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of another exporter. A stored name that matches `detector` shows that a file is in
    this layout.

    Of the rules the first that matches counts; names that match none are canonical already.
    `depth_key` is what this exporter's config calls the depth, where that differs.
    """

    name: str
    detector: str
    rules: tuple[LayoutRule, ...]
    depth_key: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One entry of the table, or an inferred one.

    - `places`: model-level role (`embed`, `head`, `norm`, …) to module paths or tensor names.
    - `roles`: role below a layer to module paths relative to the layer; `stack_roles` adds to and
      overrides them for single stacks. Roles `experts.X` are relative to an expert. Use `roles_of`.
    - `experts`: an expert's module path below a layer, such as `block_sparse_moe.experts.{e}`.
    - `optional`: globs of tensors that may be absent (`lookup.py`). `ignored`: globs of stored
      non-parameters.
    - `vocabulary`: tensors with a vocabulary axis, and which one; `vocab_key`: the config's key for
      its length.
    - `experts_key`: the config's number of experts. `defaults`: what its silence about a key means.
    - `inferred`: from tensor names, not from the table. `expected`: what a config makes a loader
      expect, None where that is not known.

    Config keys are dotted where nested.
    """

    name: str
    model_types: tuple[str, ...]
    architectures: tuple[str, ...]
    stacks: tuple[LayerStack, ...]
    places: Mapping[str, tuple[str, ...]]
    roles: Mapping[str, tuple[str, ...]]
    stack_roles: Mapping[str, Mapping[str, tuple[str, ...]]]
    experts: str | None
    ties: tuple[TieRule, ...]
    optional: tuple[str, ...]
    ignored: tuple[str, ...]
    vocabulary: Mapping[str, int]
    vocab_key: str | None
    experts_key: str | None
    defaults: Mapping[str, Any]
    layouts: tuple[Layout, ...]
    inferred: bool = False
    expected: Expected | None = None

    def roles_of(self, stack: str) -> Mapping[str, tuple[str, ...]]:
        """The roles below a layer of the named stack."""
        own = self.stack_roles.get(stack)
        return {**self.roles, **own} if own else self.roles

    def is_optional(self, name: str) -> bool:
        """Whether the canonical tensor may be absent in a model."""
        return any_of(self.optional).fullmatch(name) is not None

    def is_ignored(self, name: str) -> bool:
        """Whether a tensor of this canonical name is no parameter: a buffer that some exporters
        store."""
        return any_of(self.ignored).fullmatch(name) is not None


def stack_index(family: Family, name: str) -> tuple[LayerStack, int, str] | None:
    """The stack, layer number and name below the layer of a canonical tensor name; None outside the
    stacks."""
    for stack in family.stacks:
        if name.startswith(stack.head):
            digits, _, rest = name[len(stack.head) :].partition(".")
            # a layer number is short and has no leading zero: else it could not be written back as
            # it was
            if (
                rest
                and digits.isdigit()
                and digits.isascii()
                and len(digits) < 10
                and (digits[0] != "0" or digits == "0")
            ):
                return stack, int(digits), rest
    return None


def family_for(config: Mapping[str, Any] | None, names: Collection[str]) -> Family:
    """The family of a checkpoint by its config's `architectures`, then `model_type`, then by its
    tensor names.

    What the config claims counts only where the family's layers are, so that a wrong or borrowed
    config, and that of a text model which is a part of this one, lead to inference and not to a
    family whose stacks hold no tensor. Raises nothing on strange configs.
    """
    given = config.get("architectures") if config else None
    architecture = given[0] if isinstance(given, list) and given and isinstance(given[0], str) else None
    type_said = config.get("model_type") if config else None
    kind = type_said if isinstance(type_said, str) else None
    for claim in _claims(config):
        if _bears_out(claim, names):
            return _informed(claim, architecture, kind)
    return _informed(build(infer(names, config), inferred=True), architecture, kind)


def families() -> Mapping[str, Family]:
    """The whole table by family name, in alphabetical order. Parses every entry; `family_for` only
    what it needs."""
    return MappingProxyType({name: _load(name) for name in sorted(_texts())})


def build(entry: Entry, *, inferred: bool = False) -> Family:
    """A family from an entry's data. Raises KeyError or ValueError where the entry is malformed."""
    return Family(
        name=entry["name"],
        model_types=_strings(entry.get("model_types", ())),
        architectures=_strings(entry.get("architectures", ())),
        stacks=tuple(
            LayerStack(
                name,
                s["prefix"],
                s.get("depth_key"),
                s.get("extra_key"),
                tuple(LayerFact(f.get("items"), f.get("rule")) for f in s.get("facts", ())),
            )
            for name, s in entry.get("stacks", {}).items()
        ),
        places=_with_whole_text(_paths(entry.get("places", {})), entry.get("stacks", {})),
        roles=_paths(entry.get("roles", {})),
        stack_roles=MappingProxyType({s: _paths(roles) for s, roles in entry.get("stack_roles", {}).items()}),
        experts=entry.get("experts"),
        ties=tuple(
            TieRule(t["primary"], _strings(t["aliases"]), t.get("config_key"), t.get("default", True))
            for t in entry.get("ties", ())
        ),
        optional=_strings(entry.get("optional", ())),
        ignored=_strings(entry.get("ignored", ())),
        vocabulary=MappingProxyType(dict(entry.get("vocabulary", {}))),
        vocab_key=entry.get("vocab_key"),
        experts_key=entry.get("experts_key"),
        defaults=MappingProxyType(dict(entry.get("defaults", {}))),
        layouts=tuple(_layout(name, data) for name, data in entry.get("layouts", {}).items()),
        inferred=inferred,
    )


# --- the table -----------------------------------------------------------------------------------


@functools.cache
def _texts() -> Mapping[str, str]:
    """The text of each entry, by family name."""
    return {file.stem: file.read_text("utf-8") for file in Path(__file__).with_name("families").glob("*.toml")}


@functools.cache
def _index() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Family names by architecture and by model type. Only the head of each entry, up to its first
    table, is parsed."""
    by_architecture: dict[str, str] = {}
    by_type: dict[str, str] = {}
    for name, text in sorted(_texts().items()):
        head = tomllib.loads(text.partition("\n[")[0])
        by_architecture.update(dict.fromkeys(head["architectures"], name))
        by_type.update(dict.fromkeys(head["model_types"], name))
    return by_architecture, by_type


@functools.cache
def _load(name: str) -> Family:
    return build(_entry(name))


def _entry(name: str) -> Entry:
    """An entry's data. One that is `like` another states what differs.

    Its tables add to the other's, an empty list taking a key away; its values replace the other's.
    """
    own: Entry = tomllib.loads(_texts()[name])
    if "like" not in own:
        return own
    entry = _entry(own.pop("like"))
    for key, value in own.items():
        if isinstance(value, dict) and key in entry:
            value = {k: v for k, v in {**entry[key], **value}.items() if v != []}
        entry[key] = value
    return entry


def _layout(name: str, data: Mapping[str, Any]) -> Layout:
    rules = []
    for stored, to in data["rules"].items():
        over = to.get("over") if isinstance(to, dict) else None
        parts = _strings(to["parts"] if isinstance(to, dict) else to)
        bound = set(pattern(stored).variables) | ({over} if over else set())
        if any(set(pattern(part).variables) != bound for part in parts):
            raise ValueError(f"layout `{name}`: `{stored}` and its parts differ in their variables")
        rules.append(LayoutRule(stored, parts, over))
    return Layout(name, data["detector"], tuple(rules), data.get("depth_key"))


def _strings(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _paths(table: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({role: _strings(paths) for role, paths in table.items()})


def _with_whole_text(places: Mapping[str, tuple[str, ...]], stacks: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """The places, `text` of a multimodal model with its output head, wherever that is stored: it is
    all that a language model has."""
    text = places.get("text", ())
    if not text or "text.layers" not in stacks:
        return places
    ends = [m for role in ("embed", "norm", "head") for m in places.get(role, ())]
    rest = [m for m in ends if not any(m == top or m.startswith(top + ".") for top in text)]
    return MappingProxyType({**places, "text": (*text, *dict.fromkeys(rest))})


@functools.lru_cache(maxsize=64)
def _informed(family: Family, architecture: str | None, kind: str | None) -> Family:
    """A family with what is known of an architecture: what it expects, what its layers are by the
    config, and what silence of that means."""
    entry = entry_of(architecture) if architecture is not None else None
    # a class may serve other types too, which store it under names of their own
    if entry is None or kind != entry["model_type"]:
        return family
    facts = entry.get("facts", {})
    stacks = []
    for stack in family.stacks:
        own = facts.get(stack.prefix.removesuffix(".{i}"))
        if own is not None and not stack.facts:
            known = tuple(LayerFact(fact.get("items"), fact.get("rule")) for fact in own)
            stack = dataclasses.replace(stack, facts=known)
        stacks.append(stack)
    defaults = MappingProxyType({**entry.get("defaults", {}), **family.defaults})
    return dataclasses.replace(family, stacks=tuple(stacks), defaults=defaults, expected=expected_of(entry))


# --- which entry ---------------------------------------------------------------------------------


def _claims(config: Mapping[str, Any] | None) -> Iterator[Family]:
    """The families that a config names, outermost and most specific first."""
    by_architecture, by_type = _index()
    seen: set[str] = set()
    for level in (config, config.get("text_config") if config else None):
        if not isinstance(level, Mapping):
            continue
        architectures = level.get("architectures")
        named = (
            [by_architecture.get(a) for a in architectures if isinstance(a, str)]
            if isinstance(architectures, list)
            else []
        )
        kind = level.get("model_type")
        named.append(by_type.get(kind) if isinstance(kind, str) else None)
        for name in named:
            if name is not None and name not in seen:
                seen.add(name)
                yield _load(name)


def _bears_out(family: Family, names: Collection[str]) -> bool:
    """Whether any tensor lies in a layer of the family's stacks, in any of its layouts.

    A loose place is no evidence: an `lm_head` at the root is in models of all kinds.
    """
    if any(stack_index(family, name) is not None for name in names):
        return True
    kinds = {kind_of(texts) for texts in {split(name)[0] for name in names}}
    return any(pattern(layout.detector).match(kind) is not None for layout in family.layouts for kind in kinds)
