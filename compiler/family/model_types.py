"""What transformers knows of its model types: the sections of `model_types.toml`, which
`tools/model_types` generates.

The file is not parsed: a section is found by its heading and ends at the next empty line.
"""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
"""The data of an entry, of the same form as `families/*.toml`."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_HEADING = re.compile(r"\n\n\[(.+)\]\n")
_VERSION = re.compile(r"from transformers ([0-9][0-9.]*[0-9])")


def transformers_version() -> str:
    """The version that the data is from."""
    found = _VERSION.search(_text())
    return found[1] if found else "?"


def model_types() -> tuple[str, ...]:
    """The types that there is a section of, sorted."""
    return tuple([json.loads(h) if h.startswith('"') else h for h in _HEADING.findall(_text())])


def entry_of(model_type: str, architecture: str | None) -> Entry | None:
    """The entry of an architecture of a type, that of the type's first one where it has none of
    this name; None where the type is not known."""
    section = _section(model_type)
    if section is None:
        return None
    variants = section.pop("variants", ())
    entry = {"name": model_type, "model_types": [model_type], **section}
    own = next((variant for variant in variants if architecture in variant["architectures"]), None)
    return overlaid(entry, own) if own is not None else entry


def overlaid(entry: Entry, own: Mapping[str, Any]) -> Entry:
    """An entry with what another says otherwise: its tables add, an empty list taking a key away;
    its values replace the entry's, an empty list too taking them away."""
    entry = dict(entry)
    for key, value in own.items():
        if value == []:
            entry.pop(key, None)
            continue
        if isinstance(value, dict) and key in entry:
            value = {k: v for k, v in {**entry[key], **value}.items() if v != []}
        entry[key] = value
    return entry


def type_of(architecture: str) -> str | None:
    """A type that an architecture is of."""
    text = _text()
    at = text.find(f"{json.dumps(architecture)}")
    if at < 0:
        return None
    start = text.rfind("\n\n[", 0, at)
    found = _HEADING.match(text, start) if start >= 0 else None
    if found is None:
        return None
    heading = found[1]
    return str(json.loads(heading)) if heading.startswith('"') else heading


@functools.cache
def _text() -> str:
    return Path(__file__).with_name("model_types.toml").read_text("utf-8")


def _section(model_type: str) -> Entry | None:
    key = model_type if _BARE_KEY.fullmatch(model_type) else json.dumps(model_type, ensure_ascii=False)
    text = _text()
    at = text.find(f"\n\n[{key}]\n")
    if at < 0:
        return None
    end = text.find("\n\n", at + 2)
    data: dict[str, Entry] = tomllib.loads(text[at + 2 :] if end < 0 else text[at + 2 : end])
    return data[model_type]
