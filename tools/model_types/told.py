"""What is told by hand of the layers of some types: `layer_facts.toml`."""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path
from typing import Any

from mergec.compiler.family.config_rules import rule

from .stacks import Found
from .subject import Subject, dotted, levels

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
