"""Which tensors are one, and the key that says so: found by changing it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .subject import TIE, Subject, dotted, levels, made

Pairs = frozenset[frozenset[str]]


def tie_keys(config: PreTrainedConfig) -> list[str]:
    return [dotted(path, TIE) for path, level in levels(config) if hasattr(level, TIE)]


def with_ties(config: PreTrainedConfig, values: Mapping[str, bool]) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    homes = dict(levels(config))
    for key, value in values.items():
        setattr(homes[key.rpartition(".")[0]], TIE, value)
    return config


def all_tied(config: PreTrainedConfig) -> PreTrainedConfig:
    return with_ties(config, dict.fromkeys(tie_keys(config), True))


def groups(model: PreTrainedModel) -> dict[int, list[str]]:
    """Names in memory of parameters that are one."""
    found: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), []).append(name)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        if name in model.state_dict():
            found.setdefault(id(buffer), []).append(name)
    return {key: names for key, names in found.items() if len(names) > 1}


def _tied(architecture: str, config: PreTrainedConfig) -> set[frozenset[str]]:
    model = made(architecture, config)
    return {frozenset((names[0], name)) for names in groups(model).values() for name in names[1:]}


def ties_of(subject: Subject) -> list[dict[str, Any]]:
    """The rules; `subject` is built with all ties that a config can ask for."""
    mine = groups(subject.model)
    if not mine:
        return []
    keys = tie_keys(subject.config)

    def tied(values: Mapping[str, bool]) -> set[frozenset[str]] | None:
        try:
            return _tied(subject.architecture, with_ties(subject.config, values))
        except Exception:
            return None

    never = tied(dict.fromkeys(keys, False))
    alone = {key: tied({k: k == key for k in keys}) for key in keys}
    without = {key: tied({k: k != key for k in keys}) for key in keys}

    def controls(pair: frozenset[str]) -> str | None:
        if never is None:
            return keys[0] if keys else None
        if pair in never:
            return None
        for key in keys:
            if (found := without[key]) is not None and pair not in found:
                return key
        return next((key for key in keys if pair in (alone[key] or ())), None)

    sources = set(subject.model.all_tied_weights_keys.values())
    rules: dict[tuple[str, str | None], list[str]] = {}
    for names in mine.values():
        named = {name: subject.in_file(name) for name in names}
        stored = [n for n in names if named[n] in subject.stored]
        primary = next((n for n in stored if n in sources), stored[0] if stored else names[0])
        for name in names:
            if name != primary and named[name] != named[primary]:
                key = controls(frozenset((names[0], name if name != names[0] else primary)))
                rules.setdefault((named[primary], key), []).append(named[name])
    out = []
    for (primary, key), aliases in rules.items():
        rule: dict[str, Any] = {"primary": primary, "aliases": list(dict.fromkeys(aliases))}
        if key is not None:
            rule |= {"config_key": key, "default": _default(subject.kind, key)}
        out.append(rule)
    return out


def _default(kind: str, key: str) -> bool:
    config = CONFIG_MAPPING[kind]()
    home = dict(levels(config)).get(key.rpartition(".")[0])
    return bool(getattr(home, TIE, True))
