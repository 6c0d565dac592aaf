"""The names of memory as a layout: those under which trainers store what they hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from mergec.compiler.family.patterns import pattern, substitute
from transformers.core_model_loading import revert_weight_conversion

from .stacks import Found
from .subject import Subject

_VARIABLES = "ijkl"


class NotExpressible(Exception):
    """What is no renaming, and no part of a tensor as layouts have them."""


def memory_layout(subject: Subject, stacks: list[Found]) -> dict[str, Any] | None:
    """The layout; None where memory and file have the same names. Raises NotExpressible."""
    renamed: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for name, sources in subject.sources.items():
        if not all(subject.stored[name]):
            continue
        if len(sources) != 1:
            raise NotExpressible(f"{name} is made of {len(sources)} tensors")
        several.setdefault(subject.primary(sources[0]), []).append(name)
    rules: dict[str, Any] = {}
    for source, names in several.items():
        if len(names) == 1 and tuple(subject.model.state_dict()[source].shape) == subject.stored[names[0]]:
            renamed[source] = names[0]
        else:
            rules |= _fused(subject, source)
    if not rules and all(source == name for source, name in renamed.items()):
        return None
    rules |= _renamings(renamed)
    detector = _detector(rules, set(subject.stored), stacks)
    return {"detector": detector, "rules": rules}


def _fused(subject: Subject, source: str) -> dict[str, Any]:
    """The rule for a tensor that holds a part of each expert, as the library takes it apart."""
    shape = subject.model.state_dict()[source].shape
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    try:
        found = revert_weight_conversion(subject.model, {source: tensor})
    except Exception as error:
        raise NotExpressible(f"{source}: {type(error).__name__}") from None
    kinds: dict[str, dict[int, torch.Tensor]] = {}
    for name, part in found.items():
        parts = name.split(".")
        at = next((k for k in range(len(parts) - 1, -1, -1) if parts[k].isdigit()), None)
        if at is None or not isinstance(part, torch.Tensor):
            raise NotExpressible(f"{source} is {name}")
        kinds.setdefault(".".join([*parts[:at], "{e}", *parts[at + 1 :]]), {})[int(parts[at])] = part
    count = len(kinds)
    if len(shape) < 2 or shape[1] % count:
        raise NotExpressible(f"{source} in {count}")
    size = shape[1] // count
    order: dict[int, str] = {}
    for kind, parts_of in kinds.items():
        at = next((k for k in range(count) if torch.equal(parts_of[0], tensor[0, k * size : (k + 1) * size])), None)
        if at is None or any(
            not torch.equal(part, tensor[e, at * size : (at + 1) * size]) for e, part in parts_of.items()
        ):
            raise NotExpressible(f"{source} is not {kind} one after the other")
        order[at] = kind
    stored, parts_named = _general(source, [order[k] for k in sorted(order)])
    return {stored: {"parts": parts_named, "over": "e"}}


def _general(source: str, targets: list[str]) -> tuple[str, list[str]]:
    """Names with their numbers as variables, which are the same in all."""
    numbers = [part for part in source.split(".") if part.isdigit()]
    out = [_with_variables(text, numbers) for text in (source, *targets)]
    return out[0], out[1:]


def _with_variables(text: str, numbers: list[str]) -> str:
    if len(numbers) > len(_VARIABLES) or [p for p in text.split(".") if p.isdigit()] != numbers:
        raise NotExpressible(f"the numbers of {text}")
    variables = iter(_VARIABLES)
    return ".".join("{" + next(variables) + "}" if part.isdigit() else part for part in text.split("."))


def _renamings(renamed: Mapping[str, str]) -> dict[str, str]:
    """Rules for what follows a prefix, the longest first; where they say otherwise than they
    should, for whole names before them."""
    rules: dict[str, str] = {}
    for source, name in renamed.items():
        if source != name:
            old, new = _prefixes(source, name)
            old, (new,) = _general(old, [new])
            rules[old] = new
    ordered = dict(sorted(rules.items(), key=lambda rule: (-rule[0].count("."), rule[0])))
    first: dict[str, str] = {}
    for source, name in renamed.items():
        if applied(ordered, source) != name:
            old, (new,) = _general(source, [name])
            first[old] = new
    ordered = {**first, **ordered}
    wrong = next((source for source, name in renamed.items() if applied(ordered, source) != name), None)
    if wrong is not None:
        raise NotExpressible(f"{wrong} is {renamed[wrong]}")
    return ordered


def applied(rules: Mapping[str, str], name: str) -> str:
    for old, new in rules.items():
        found = pattern(old, "[0-9]+").match(name)
        if found is not None:
            return substitute(new, found)
    return name


def _prefixes(source: str, name: str) -> tuple[str, str]:
    """Two names up to where they are the same to the end, which `*` stands for."""
    old, new = source.split("."), name.split(".")
    same = 0
    while same < min(len(old), len(new)) - 1 and old[-1 - same] == new[-1 - same]:
        same += 1
    # neither prefix may be empty: a rule for all names says nothing
    same = min(same, len(old) - 1, len(new) - 1)
    while same and re.fullmatch("[0-9]+", old[len(old) - same]):
        same -= 1
    if not same:
        return source, name
    return ".".join([*old[: len(old) - same], "*"]), ".".join([*new[: len(new) - same], "*"])


def _detector(rules: Mapping[str, Any], canonical: set[str], stacks: list[Found]) -> str:
    """A pattern of names that are in this layout alone."""
    paths = [stack.path for stack in stacks]
    free = [old for old in rules if not any(pattern(old, "[0-9]+").match(name) for name in canonical)]
    free.sort(key=lambda old: not any(old.startswith(path) or path.startswith(old.rstrip("*.")) for path in paths))
    if not free:
        raise NotExpressible("no name tells the layouts apart")
    return free[0]
