"""What is told by hand of the layers of some types: `layer_facts.toml`."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mergec.compiler.family.config_rules import rule
from transformers import PreTrainedConfig

from .stacks import Found
from .subject import Subject, dotted, levels

_FEW = 6
_FILE = Path(__file__).with_name("layer_facts.toml")


def told_facts(subject: Subject, stack: Found, depth_key: str) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Facts of a stack and what silence about their keys means, with keys as they are in the whole
    config: told of the type of the config in which the stack is counted."""
    path = depth_key.rpartition(".")[0]
    level = dict(levels(subject.config)).get(path)
    said = _told().get(getattr(level, "model_type", None) or "", {})
    if stack.name not in ("layers", "text.layers"):
        return [], {}
    facts = [_within(path, fact) for fact in said.get("facts", ())]
    return facts, {dotted(path, key): value for key, value in said.get("defaults", {}).items()}


def listed_fact(subject: Subject, key: str) -> dict[str, str]:
    """The fact of a list, with its rule where all layers are the same without it, whatever switch
    or number of the config is another."""
    path, _, name = key.rpartition(".")
    level = dict(levels(subject.config))[path]
    try:
        lists = [getattr(each, name) for each in _others(type(level))]
    except Exception:
        return {"items": key}
    items = [item for each in lists for item in each] if all(isinstance(each, list) for each in lists) else []
    alike = len(items) > _FEW and all(item == items[0] for item in items) and isinstance(items[0], str | int | bool)
    return {"items": key, "rule": repr(items[0])} if alike else {"items": key}


def _others(made: type[PreTrainedConfig]) -> Iterator[PreTrainedConfig]:
    """The config of a type that says nothing, and such with another switch or number."""
    usual = made()
    yield usual
    for key, value in usual.to_dict().items():
        for other in (not value,) if type(value) is bool else (1, 2) if type(value) is int else ():
            try:
                yield made(**{key: other})
            except Exception:
                continue


@functools.cache
def _told() -> dict[str, dict[str, Any]]:
    return tomllib.loads(_FILE.read_text("utf-8"))


def _within(path: str, fact: dict[str, str]) -> dict[str, str]:
    """A fact with its keys below a nested config."""
    text = fact["rule"]
    for key in rule(text).keys if path else ():
        text = re.sub(rf"\b{re.escape(key)}\b", dotted(path, key), text)
    out = {"rule": text}
    if "items" in fact:
        out = {"items": dotted(path, fact["items"]), **out}
    return out
