"""Whether a checkpoint's config.json says what its tensors say: the reading side of `configuration.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .aliases import config_value
from .configuration import has_head
from .models import Model


def disagreements(model: Model) -> list[str]:
    """What config.json says otherwise than the tensors, a sentence each: depths, lists with an item a layer, the
    vocabulary, and ties whose second name is not stored.

    Keys that are absent, or in no place that the family knows, say nothing. A tie that is stored twice with different
    bytes is a warning of `bind`, which needs to read them.
    """
    return [*_depths(model), *_lists(model), *_vocabulary(model), *_untied(model)]


def _value(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = config_value(value, part) if isinstance(value, Mapping) else None
    return value


def _depths(model: Model) -> Iterator[str]:
    others = [layout.depth_key for layout in model.family.layouts if layout.depth_key]
    for stack in model.family.stacks:
        depth = model.space.depths.get(stack.name)
        if depth is None or stack.depth_key is None:
            continue
        for key in dict.fromkeys([stack.depth_key, *others]):
            said = _value(model.config, key)
            if said is not None and said != depth:
                yield f"`{key}` is {_shown(said)}, but the tensors have {depth} of `{stack.name}`"


def _lists(model: Model) -> Iterator[str]:
    if len(model.space.depths) != 1:
        return
    ((stack, depth),) = model.space.depths.items()
    for key in model.family.per_layer_keys:
        said = _value(model.config, key)
        if isinstance(said, list) and len(said) != depth:
            yield f"`{key}` has {len(said)} items, but the tensors have {depth} of `{stack}`"


def _vocabulary(model: Model) -> Iterator[str]:
    key = model.family.vocab_key
    said = None if key is None else _value(model.config, key)
    if said is None:
        return
    for name, axis in model.family.vocabulary.items():
        view = model.tensors.get(name)
        if view is not None and axis < len(view.shape) and view.shape[axis] != said:
            yield f"`{key}` is {_shown(said)}, but `{name}` has {view.shape[axis]} rows"


def _untied(model: Model) -> Iterator[str]:
    if not has_head(model.config):
        return
    for rule in model.family.ties:
        said = config_value(model.config, rule.config_key) if rule.config_key else True
        if rule.default if said is None else bool(said):
            continue
        for alias in rule.aliases:
            if model.aliases.get(alias) == rule.primary and alias not in model.checkpoint.tensors:
                yield f"`{rule.config_key}` says that `{alias}` is a tensor of its own, but it is not stored"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"
