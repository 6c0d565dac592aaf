"""Tensors with a row for each token, and the key that counts the tokens; keys that count
experts."""

from __future__ import annotations

import re
from typing import Any

from .stacks import Found, integers
from .subject import Subject, changed, made

_MORE = 8
_EXPERTS = re.compile(r"(^|_)(num|n)_(\w+_)?experts$|^expert_num$|num_experts|n_routed_experts")

Shapes = dict[str, tuple[int, ...]]


def shapes_with(subject: Subject, key: str, value: int) -> Shapes | None:
    try:
        model = made(subject.architecture, changed(subject.config, {key: value}))
    except Exception:
        return None
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if hasattr(tensor, "shape")}


def vocabulary_of(
    subject: Subject, stacks: list[Found], embed: str | None, head: str | None
) -> tuple[str | None, dict[str, int]]:
    """`embed` and `head` are paths in memory."""
    before = {n: tuple(t.shape) for n, t in subject.model.state_dict().items() if hasattr(t, "shape")}
    found: dict[str, Shapes] = {}
    for key, value in integers(subject.config):
        if "vocab" in key.rpartition(".")[2] and "type_vocab" not in key:
            after = shapes_with(subject, key, value + _MORE)
            if after is not None and after != before:
                found[key] = after
    for path in (embed, head):
        for key, after in found.items():
            name = f"{path}.weight"
            if path is not None and name in before and after.get(name) != before[name]:
                return key, _rows(subject, stacks, before, after, dict(integers(subject.config))[key])
    return None, {}


def _rows(subject: Subject, stacks: list[Found], before: Shapes, after: Shapes, size: int) -> dict[str, int]:
    rows: dict[str, int] = {}
    for name, shape in before.items():
        other = after.get(name)
        if other is None or other == shape or len(other) != len(shape):
            continue
        axes = [k for k, (a, b) in enumerate(zip(shape, other)) if a != b]
        stored = subject.in_file(name)
        if len(axes) == 1 and shape[axes[0]] == size and not any(stored.startswith(s.prefix + ".") for s in stacks):
            rows[stored] = axes[0]
    return rows


def experts_key(subject: Subject) -> str | None:
    """The key that counts the experts of a layer."""
    before = {n: tuple(t.shape) for n, t in subject.model.state_dict().items() if hasattr(t, "shape")}
    for key, value in integers(subject.config):
        if _EXPERTS.search(key.rpartition(".")[2]) and "shared" not in key and "per_tok" not in key:
            for more in (value, 1):
                after: Any = shapes_with(subject, key, value + more)
                if after is not None:
                    if any("expert" in n and after.get(n) != s for n, s in before.items()) or any(
                        "expert" in n and n not in before for n in after
                    ):
                        return key
                    break
    return None
