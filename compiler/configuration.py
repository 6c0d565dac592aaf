"""config.json of the output: the template's, made true to the tensors."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .aliases import config_value
from .architectures import has_head
from .documents import json_text
from .dtypes import TORCH_NAMES
from .elaborate import Elaboration
from .graph import Output
from .settings import Settings
from .shapes import elements


def config_text(elaboration: Elaboration, settings: Settings, origin: Mapping[str, Any]) -> str:
    """The text of config.json.

    Depth, per-layer lists, vocabulary, ties and dtype follow the tensors; `origin` is the config that it starts from;
    `output(config=…)` is merged in last.
    """
    config = copy.deepcopy(dict(origin))
    _layers(config, elaboration)
    _vocabulary(config, elaboration)
    _ties(config, elaboration)
    _dtype(config, elaboration.graph.outputs)
    _merge(config, settings.config)
    return json_text(config)


def _get(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key where its parents are; an undotted key that lives in `text_config` is set there."""
    parts = key.split(".")
    target: Any = config
    for part in parts[:-1]:
        target = target.get(part) if isinstance(target, dict) else None
    if len(parts) == 1 and key not in config and isinstance(config.get("text_config"), dict):
        nested = config["text_config"]
        if key in nested:
            target = nested
    if isinstance(target, dict):
        target[parts[-1]] = value


def _layers(config: dict[str, Any], elaboration: Elaboration) -> None:
    template = elaboration.template
    stacks = [s for s in template.family.stacks if s.name in elaboration.space.depths]
    for stack in stacks:
        before, after = template.space.depths.get(stack.name, 0), elaboration.space.depths[stack.name]
        # layers that the config counts apart are among the stored ones, or are not
        extra = _get(template.config, stack.extra_key) if stack.extra_key else None
        if isinstance(extra, int) and stack.depth_key and _get(template.config, stack.depth_key) == before - extra:
            before, after = before - extra, after - extra
        if stack.depth_key and (before != after or _get(config, stack.depth_key) != after):
            keys = [stack.depth_key]
            keys += [layout.depth_key for layout in template.family.layouts if layout.depth_key]
            present = [k for k in keys if _get(config, k) is not None]
            for key in present or keys[:1]:
                _set(config, key, after)
    if len(stacks) != 1:
        return
    sources = elaboration.layer_sources.get(stacks[0].name, [])
    for key in template.family.per_layer_keys:
        if not isinstance(_get(config, key), list):
            continue
        entries = []
        for origin in sources:
            own = _get(origin[0].config, key) if origin else None
            if origin is None or not isinstance(own, list) or origin[1] >= len(own):
                break
            entries.append(own[origin[1]])
        if len(entries) == len(sources):
            _set(config, key, entries)


def _vocabulary(config: dict[str, Any], elaboration: Elaboration) -> None:
    family = elaboration.template.family
    if family.vocab_key is None:
        return
    for output in elaboration.graph.outputs:
        if output.name in family.vocabulary:
            rows = output.shape[family.vocabulary[output.name]]
            if _get(config, family.vocab_key) not in (None, rows):
                _set(config, family.vocab_key, rows)
            return


def _ties(config: dict[str, Any], elaboration: Elaboration) -> None:
    stored = {o.name for o in elaboration.graph.outputs}
    for rule in elaboration.template.family.ties:
        if rule.config_key is None or rule.primary not in stored:
            continue
        said = config_value(config, rule.config_key)
        says = rule.default if said is None else bool(said)
        if any(alias in stored for alias in rule.aliases):
            if says:
                _set(config, rule.config_key, False)
        elif not says and any(alias in elaboration.ties for alias in rule.aliases) and has_head(config):
            _set(config, rule.config_key, True)


def _dtype(config: dict[str, Any], outputs: Sequence[Output]) -> None:
    """The dtype that most numbers have, under the key that the config uses."""
    count: Counter[str] = Counter()
    for output in outputs:
        count[output.dtype] += elements(output.shape)
    if not count:
        return
    name = TORCH_NAMES.get(count.most_common(1)[0][0])
    keys = [k for k in ("dtype", "torch_dtype") if k in config]
    for key in keys or ["torch_dtype"]:
        config[key] = name
    nested = config.get("text_config")
    if isinstance(nested, dict):
        for key in ("dtype", "torch_dtype"):
            if key in nested:
                nested[key] = name


def _merge(config: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _merge(config[key], value)
        else:
            config[key] = value
