"""What the architecture that a config names says of its tensors: whether there is an output head,
and its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_HEADED = (
    "LM",
    "LMHeadModel",
    "DoubleHeadsModel",
    "Generation",
    "PreTraining",
    "MTModel",
    "ShieldGemma2ForImageClassification",  # answers by the next token
)
"""How the names of transformers' architectures end that predict tokens."""

_TIED_HEADS: Mapping[str, str] = {
    "biogpt": "output_projection",
    "blip-2": "language_model.lm_head",
    "canary": "proj_out",
    "instructblip": "language_model.lm_head",
    "instructblipvideo": "language_model.lm_head",
    "kosmos-2": "text_model.lm_head",
    "kosmos-2.5": "text_model.lm_head",
    "moonshine": "proj_out",
    "t5gemma": "lm_head.out_proj",
    "t5gemma2": "lm_head.out_proj",
    "trocr": "output_projection",
    "whisper": "proj_out",
}
"""The module of the head by `model_type`, where it is not `lm_head`."""


def has_head(config: Mapping[str, Any]) -> bool:
    """Whether the architecture has an output head at all: an encoder, a classifier or a bare model
    has nothing tied."""
    return architecture_of(config) is None or names_head(config)


def names_head(config: Mapping[str, Any]) -> bool:
    """Whether an architecture is named, and it is one with an output head."""
    return str(architecture_of(config) or "").endswith(_HEADED)


def architecture_of(config: Mapping[str, Any]) -> object | None:
    """What a config names first as its architecture."""
    architectures = config.get("architectures")
    return architectures[0] if isinstance(architectures, Sequence) and architectures else None


def tied_head(config: Mapping[str, Any]) -> str:
    """The module of a head that has no tensor of its own, in a model of no listed family."""
    kind = config.get("model_type")
    return _TIED_HEADS.get(kind, "lm_head") if isinstance(kind, str) else "lm_head"
