"""The architectures of each model type, by the tables of transformers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import transformers
from transformers.models.auto import modeling_auto

from ..small_models import BARE, pairs

MOST_TELLING = (
    "IMAGE_TEXT_TO_TEXT",
    "SEQ_TO_SEQ_CAUSAL_LM",
    "SPEECH_SEQ_2_SEQ",
    "CAUSAL_LM",
    "MASKED_LM",
    "PRETRAINING",
    "MULTIMODAL_LM",
    "CTC",
    "RNNT",
    "TDT",
)
"""Tables whose classes have all of a type's parts; the first that a type is in gives the
architecture whose names are the type's canonical ones."""


@functools.cache
def _tables() -> Mapping[str, Mapping[str, str | tuple[str, ...]]]:
    names = [name for name in vars(modeling_auto) if name.startswith("MODEL_") and name.endswith("MAPPING_NAMES")]
    found = {
        name.removeprefix("MODEL_FOR_").removesuffix("_MAPPING_NAMES"): getattr(modeling_auto, name) for name in names
    }
    found["BARE"] = found.pop("MODEL_MAPPING_NAMES", None) or modeling_auto.MODEL_MAPPING_NAMES
    return found


def architectures(kind: str) -> Sequence[str]:
    """The classes of a type, the most telling first, the bare model last."""
    order = [*MOST_TELLING, *sorted(set(_tables()) - {*MOST_TELLING, "BARE"}), "BARE"]
    found: dict[str, None] = {}
    for table in order:
        classes = _tables().get(table, {}).get(kind, ())
        found |= dict.fromkeys((classes,) if isinstance(classes, str) else classes)
    return [name for name in found if hasattr(transformers, name)]


def kinds() -> Sequence[str]:
    return sorted({pair.kind for pair in pairs()})


def head_of(kind: str, architecture: str) -> str:
    """The head whose small config is that of an architecture: its own, else the bare model's, else
    any."""
    own = [pair for pair in pairs() if pair.kind == kind]
    first = next((pair.head for pair in own if architecture in pair.classes), None)
    return first or next((pair.head for pair in own if pair.head == BARE), own[0].head)
