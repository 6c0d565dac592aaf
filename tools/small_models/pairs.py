"""Every model type of the installed transformers with every head that it is built with."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import transformers
from transformers.models.auto import modeling_auto

HEADS = {
    "CausalLM": "CAUSAL_LM",
    "MaskedLM": "MASKED_LM",
    "Seq2SeqLM": "SEQ_TO_SEQ_CAUSAL_LM",
    "SequenceClassification": "SEQUENCE_CLASSIFICATION",
    "TokenClassification": "TOKEN_CLASSIFICATION",
    "ImageTextToText": "IMAGE_TEXT_TO_TEXT",
    "SpeechSeq2Seq": "SPEECH_SEQ_2_SEQ",
    "ImageClassification": "IMAGE_CLASSIFICATION",
    "AudioClassification": "AUDIO_CLASSIFICATION",
    "CTC": "CTC",
}
"""Heads by the name of their auto class, with the word of transformers' table."""

BARE = "Model"
"""The head of models without one: AutoModel. Of types that have heads, encoders alone are asked."""

ENCODERS = ("TEXT_ENCODING", "IMAGE", "ZERO_SHOT_IMAGE_CLASSIFICATION")


class Pair(NamedTuple):
    """A model type, a head, and the classes that AutoModelFor<head> may take, the preferred
    first."""

    kind: str
    head: str
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.head}"


@functools.cache
def pairs() -> tuple[Pair, ...]:
    found = [Pair(kind, head, _several(classes)) for head in HEADS for kind, classes in _table(HEADS[head]).items()]
    headed = {pair.kind for pair in found}
    encoders = {kind for words in ENCODERS for kind in _table(words)}
    for kind, classes in modeling_auto.MODEL_MAPPING_NAMES.items():
        if kind in encoders or kind not in headed:
            found.append(Pair(kind, BARE, _several(classes)))
    return tuple(found)


@functools.cache
def pair(kind: str, head: str) -> Pair:
    return next(each for each in pairs() if (each.kind, each.head) == (kind, head))


def is_encoder(kind: str) -> bool:
    return any(kind in _table(words) for words in ENCODERS)


def auto_class(head: str) -> type:
    name = "AutoModel" if head == BARE else f"AutoModelFor{head}"
    found: type = getattr(transformers, name)
    return found


def _table(words: str) -> dict[str, str | Sequence[str]]:
    found: dict[str, str | Sequence[str]] = getattr(modeling_auto, f"MODEL_FOR_{words}_MAPPING_NAMES")
    return found


def _several(classes: str | Sequence[str]) -> tuple[str, ...]:
    return (classes,) if isinstance(classes, str) else tuple(classes)
