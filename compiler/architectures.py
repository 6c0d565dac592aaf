"""What the architecture that a config names says of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_HEADED = ("LM", "LMHeadModel", "Generation", "PreTraining")


def has_head(config: Mapping[str, Any]) -> bool:
    """Whether the architecture has an output head at all: a bare encoder without one is not tied."""
    architectures = config.get("architectures")
    return not isinstance(architectures, Sequence) or not architectures or names_head(config)


def names_head(config: Mapping[str, Any]) -> bool:
    """Whether an architecture is named, and it is one with an output head."""
    architectures = config.get("architectures")
    if not isinstance(architectures, Sequence) or not architectures:
        return False
    return any(str(architectures[0]).endswith(end) for end in _HEADED)
