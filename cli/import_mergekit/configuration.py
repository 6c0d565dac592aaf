"""A mergekit configuration as data, and which of its settings count where."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ...grammar.records import dataclass
from ...grammar.source import Span
from .yaml_tree import Tree, YamlComment

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Branch:
    """`values` for tensors whose names contain `filter`; for all of them where it is None.

    One value holds everywhere. Several (`gradient`) run over the layers of a slice.
    """

    filter: str | None
    values: tuple[Value, ...]
    gradient: bool
    span: Span


@dataclass(frozen=True, slots=True)
class ScopedParameter:
    """A parameter as one scope gives it: of its branches the first that fits a tensor counts."""

    name: str
    branches: tuple[Branch, ...]
    key_span: Span
    span: Span


Scope = tuple[ScopedParameter, ...]
"""The `parameters` of a model, a slice, a module or the whole configuration."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A parameter over all its scopes. `complete`: the last branch takes every tensor that the
    others left.

    `span` is where it was given; None where only the default is left.
    """

    branches: tuple[Branch, ...]
    complete: bool
    span: Span | None


def rule_for(name: str, scopes: Iterable[Scope]) -> Rule:
    """The branches of a parameter over its scopes, the nearest first."""
    out: list[Branch] = []
    span: Span | None = None
    for scope in scopes:
        setting = next((s for s in scope if s.name == name), None)
        if setting is None:
            continue
        span = span or setting.span
        for branch in setting.branches:
            out.append(branch)
            if branch.filter is None:
                return Rule(tuple(out), True, span)
    return Rule(tuple(out), False, span)


Key = tuple[str, str | None, str | None, str | None]
"""What distinguishes models: path and revision, and those of an adapter."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """`path@revision+adapter`; two are the same model where `key` is equal."""

    path: str
    revision: str | None
    lora: ModelRef | None
    architecture: str | None
    span: Span

    @property
    def key(self) -> Key:
        lora = (self.lora.path, self.lora.revision) if self.lora else (None, None)
        return (self.path, self.revision, *lora)

    @property
    def plain(self) -> ModelRef:
        """The model without its adapter."""
        return dataclasses.replace(self, lora=None)

    def __str__(self) -> str:
        return self.path + (f"@{self.revision}" if self.revision else "") + (f"+{self.lora}" if self.lora else "")


def first_of_each(refs: Iterable[ModelRef]) -> list[ModelRef]:
    """References without those that name a model again."""
    found: dict[Key, ModelRef] = {}
    for ref in refs:
        found.setdefault(ref.key, ref)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Input:
    """A model in `models:`, or a source in a slice: then `layers` is its half-open range.

    `lines` are the first and last line of the entry, from 1; `span` is its first line.
    """

    model: ModelRef
    layers: tuple[int, int] | None
    parameters: Scope
    lines: tuple[int, int]
    span: Span


@dataclass(frozen=True, slots=True)
class Slice:
    sources: tuple[Input, ...]
    base: ModelRef | None
    parameters: Scope
    span: Span


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """What one module of the model is made of: `models`, or `slices`. Without a name it is all of
    it."""

    name: str | None
    models: tuple[Input, ...]
    slices: tuple[Slice, ...]
    parameters: Scope
    span: Span


@dataclass(frozen=True, slots=True)
class TokenRule:
    """The row of one token: of `model`, or of `token` (or `token_id`) there, or zero where there is
    no model."""

    text: str
    model: ModelRef | None
    token: str | None
    token_id: int | None
    zero: bool
    force: bool
    span: Span


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """`source` is `union`, `base` or a model."""

    source: str | ModelRef
    tokens: tuple[TokenRule, ...]
    pad: int | None
    span: Span


@dataclass(frozen=True, slots=True)
class Text:
    """A word of the configuration and where it stands."""

    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class Ignored:
    """A key that mergekit does not know, or that stands again below (`again`)."""

    key: str
    again: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Merge:
    """One document: a merge. `raw`: its models are single weight files, as of mergekit-pytorch.

    `ignored` are keys that have no effect.
    """

    name: Text | None
    method: Text
    modules: tuple[ModuleSpec, ...]
    base: ModelRef | None
    dtype: Text | None
    out_dtype: Text | None
    tokenizer: TokenizerSpec | None
    chat_template: Text | None
    parameters: Scope
    raw: bool
    ignored: tuple[Ignored, ...]
    comments: tuple[YamlComment, ...]
    root: Tree
    span: Span

    def models(self) -> list[ModelRef]:
        """Every model that is merged, in listed order, the base first, each once."""
        found = [self.base] if self.base else []
        for module in self.modules:
            found.extend(i.model for i in module.models)
            for part in module.slices:
                found.extend(i.model for i in part.sources)
                found.extend([part.base] if part.base else [])
        return first_of_each(found)
