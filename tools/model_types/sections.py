"""The section of a type: the entry of its most telling architecture, and in what others differ."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .entries import Entry, entry_of, subject_of
from .layouts import NotExpressible, memory_layout
from .stacks import found_stacks
from .subject import Subject

Section = dict[str, Any]


def section_of(kind: str, architectures: list[str]) -> tuple[Section | None, dict[str, str]]:
    """The section, None where no architecture can be built, and what befell those that can't."""
    failed: dict[str, str] = {}
    known: dict[str, str] = {}
    base: Entry | None = None
    first: Subject | None = None
    own: list[str] = []
    variants: list[tuple[list[str], Entry]] = []
    bare: dict[str, str] = {}
    for architecture in architectures:
        try:
            subject = subject_of(kind, architecture)
            entry = entry_of(subject, known)
        except Exception as error:
            failed[architecture] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        if base is None or first is None:
            base, first, own = entry, subject, [architecture]
            continue
        prefix = _bare_prefix(entry, base)
        if prefix:
            bare |= {_top(name): prefix + _top(name) for name in subject.stored}
            entry = _under(prefix, entry, base)
        difference = _difference(entry, base)
        if not difference:
            own.append(architecture)
            continue
        same = next((names for names, known_difference in variants if known_difference == difference), None)
        if same is not None:
            same.append(architecture)
        else:
            variants.append(([architecture], difference))
    if base is None or first is None:
        return None, failed
    section: Section = {"architectures": own, **base}
    layouts = {"bare": _bare_layout(bare, base)} if bare else {}
    try:
        memory = memory_layout(first, found_stacks(first))
    except NotExpressible as error:
        failed["memory"], memory = str(error), None
    if memory is not None:
        layouts["memory"] = memory
    if layouts:
        section["layouts"] = layouts
    if variants:
        section["variants"] = [{"architectures": names, **difference} for names, difference in variants]
    return section, failed


def _bare_prefix(entry: Entry, base: Entry) -> str:
    """What the names of the base have before those of an architecture that is a part of it."""
    own = [stack["prefix"] for stack in entry.get("stacks", {}).values()]
    theirs = [stack["prefix"] for stack in base.get("stacks", {}).values()]
    if not own or any(prefix in theirs for prefix in own):
        return ""
    found = {name.removesuffix(prefix) for prefix in own for name in theirs if name.endswith("." + prefix)}
    prefix = min(found, key=lambda each: (len(each), each), default="")
    return prefix if prefix and "{i}" not in prefix and all(prefix + each in theirs for each in own) else ""


def _top(name: str) -> str:
    """The first part of a name; a tensor or module at the root as a whole."""
    return name.partition(".")[0]


def _bare_layout(tops: Mapping[str, str], base: Entry) -> dict[str, Any]:
    prefix = next(iter(tops.values())).removesuffix(next(iter(tops)))
    first = next(
        stack["prefix"].removeprefix(prefix) for stack in base["stacks"].values() if stack["prefix"].startswith(prefix)
    )
    return {
        "detector": f"{first}.*",
        "rules": {f"{top}.*": f"{to}.*" for top, to in sorted(tops.items())},
    }


def _under(prefix: str, entry: Entry, base: Entry) -> Entry:
    """An entry with a prefix before all names of tensors, its stacks called as those of the
    base."""
    entry = copy.deepcopy(entry)
    for stack in entry.get("stacks", {}).values():
        stack["prefix"] = prefix + stack["prefix"]
    named = {stack["prefix"]: name for name, stack in base.get("stacks", {}).items()}
    new = {name: named.get(stack["prefix"], name) for name, stack in entry.get("stacks", {}).items()}
    for key in ("stacks", "stack_roles"):
        if key in entry:
            entry[key] = {new.get(name, name): value for name, value in entry[key].items()}
    if "places" in entry:
        entry["places"] = {
            place: [prefix + each for each in paths] if isinstance(paths, list) else prefix + paths
            for place, paths in entry["places"].items()
        }
    for rule in entry.get("ties", ()):
        rule["primary"] = prefix + rule["primary"]
        rule["aliases"] = [prefix + alias for alias in rule["aliases"]]
    if "vocabulary" in entry:
        entry["vocabulary"] = {prefix + name: axis for name, axis in entry["vocabulary"].items()}
    return entry


_TABLES = ("stacks", "places", "roles", "stack_roles", "vocabulary")


def _difference(entry: Entry, base: Entry) -> Entry:
    """What an entry says otherwise than the base: tables item by item, `[]` for what it lacks."""
    out: Entry = {}
    for key in sorted({*entry, *base}):
        mine, theirs = entry.get(key), base.get(key)
        if mine == theirs:
            continue
        if key in _TABLES:
            mine, theirs = mine or {}, theirs or {}
            out[key] = {item: mine.get(item, []) for item in {**theirs, **mine} if mine.get(item) != theirs.get(item)}
        else:
            out[key] = mine if mine is not None else []
    return out
