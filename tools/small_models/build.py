"""Small configs of a model type, and models of them."""

from __future__ import annotations

import copy
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .pairs import BARE, auto_class, pair
from .shrink import Size, shrunk

LARGEST = 30_000_000
"""As many parameters as a small model may have."""

SIZES = (
    Size(),
    Size(fill=True),
    Size(every=2),
    Size(width=64),
    Size(width=64, lists=False),
    Size(width=128, whole_heads=True),
    Size(widths=False),
    Size(depth=4, every=4),
    Size(depth=6, every=6, fill=True),
)
"""Tried in turn: not every class can be built at every size."""

ABSENT = object()
"""As a value of `changes`: the config is to lack the key."""


class NotBuilt(Exception):
    """No size can be built. The reasons, one a size, the first's first."""


class _Said(NamedTuple):
    types: Mapping[str, Mapping[str, Any]]
    heads: Mapping[str, Mapping[str, Mapping[str, Any]]]


def small_config(
    kind: str,
    head: str = BARE,
    *,
    depth: int | None = None,
    vocabulary: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> PreTrainedConfig:
    """A config that `build` makes a small model of, the same at every call.

    `depth` is the main stack's (others keep theirs), lists with one item a layer follow. `changes`
    are values of keys, those of nested configs under their path (`text_config.hidden_act`). What
    class defaults the config class derives from other keys, it derives from the small ones.

    Raises NotBuilt where transformers can't build any, and what the config class raises at
    `changes`."""
    values, _ = _found(kind, head, depth, vocabulary)
    values = copy.deepcopy(values)
    for path, value in (changes or {}).items():
        _put(values, path, value)
    return _config(kind, values)


def build(
    kind: str,
    head: str = BARE,
    config: PreTrainedConfig | None = None,
    *,
    device: str = "cpu",
    seed: int = 0,
) -> PreTrainedModel:
    """A model of `config` (None: of `small_config`), in float32 and evaluation mode, with the
    weights that transformers initialises it with under `seed`; on `meta` without any. `config` is
    not changed."""
    config = copy.deepcopy(config) if config is not None else small_config(kind, head)
    torch.manual_seed(seed)
    with torch.device(device):
        return _model(kind, head, config).eval().float()


@functools.cache
def _found(kind: str, head: str, depth: int | None, vocabulary: int | None) -> tuple[dict[str, Any], Size]:
    reasons = []
    for size in SIZES:
        if depth is not None:
            size = replace(size, depth=depth, every=None)
        if vocabulary is not None:
            size = replace(size, vocabulary=vocabulary)
        try:
            values = _values(kind, head, size)
            model = _tried(kind, head, values)
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            continue
        count = sum(p.numel() for p in model.parameters())
        if count <= LARGEST:
            return values, size
        reasons.append(f"{count / 1e6:.0f} million parameters")
    raise NotBuilt(*reasons)


def _tried(kind: str, head: str, values: dict[str, Any]) -> PreTrainedModel:
    """The model, without weights where its class can do without."""
    config = _config(kind, copy.deepcopy(values))
    try:
        return build(kind, head, config, device="meta")
    except Exception as error:
        if "meta" not in str(error).lower():
            raise
    return build(kind, head, config)


def _values(kind: str, head: str, size: Size) -> dict[str, Any]:
    said = _said()
    own = dict(said.types.get(kind, {}))
    if own.pop("whole", False):
        return copy.deepcopy(own)
    values = shrunk(CONFIG_MAPPING[kind](), size)
    _override(values, kind)
    values |= copy.deepcopy(dict(said.heads.get(kind, {}).get(head, {})))
    if head == "CTC" and values.get("vocab_size", 1) is None:
        values["vocab_size"] = size.vocabulary
    return values


def _override(values: dict[str, Any], kind: str) -> None:
    """What the data file says of this type and of those nested in it; of these two the outer one
    counts."""
    for value in values.values():
        if isinstance(value, dict) and "model_type" in value:
            _override(value, value["model_type"])
    _merge(values, _said().types.get(kind, {}))


def _merge(values: dict[str, Any], said: Mapping[str, Any]) -> None:
    for key, value in said.items():
        if key == "without":
            for each in value:
                values.pop(each, None)
        elif isinstance(value, dict) and _same_type(values.get(key), value):
            _merge(values[key], value)
        else:
            values[key] = copy.deepcopy(value)


def _same_type(config: Any, said: Mapping[str, Any]) -> bool:
    """Whether `said` is about the type of a nested config, and does not put another in its
    place."""
    own = config.get("model_type") if isinstance(config, dict) else None
    return own is not None and said.get("model_type", own) == own


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    if value is ABSENT:
        values.pop(last, None)
    else:
        values[last] = copy.deepcopy(value)


def _config(kind: str, values: dict[str, Any]) -> PreTrainedConfig:
    config: PreTrainedConfig = CONFIG_MAPPING[kind](**values)
    return config


def _model(kind: str, head: str, config: PreTrainedConfig) -> PreTrainedModel:
    classes = pair(kind, head).classes
    if len(classes) > 1:
        config.architectures = [classes[0]]
    try:
        model: PreTrainedModel = auto_class(head).from_config(config)  # type: ignore[attr-defined]
    except (ValueError, TypeError, AttributeError):
        model = getattr(transformers, classes[0])(config)
    return model


@functools.cache
def _said() -> _Said:
    said = tomllib.loads(Path(__file__).with_name("overrides.toml").read_text("utf-8"))
    heads = said.pop("heads")
    return _Said(said, heads)
