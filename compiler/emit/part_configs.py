"""Configs of the output's parts: the template's, but for the dtype that its tensors have."""

from __future__ import annotations

import copy

from ..checkpoint.documents import json_text
from ..checkpoint.model import Model
from ..elaborate.elaborate import Elaboration
from .config import set_dtype
from .token_ids import CONFIG


def part_configs(elaboration: Elaboration, origin: Model) -> dict[str, str]:
    """Name to text of config.json of each part in a folder of its own, where it says a dtype that
    is another now."""
    found: dict[str, str] = {}
    for part in origin.checkpoint.parts:
        before = origin.checkpoint.below.get(part.folder, {})
        if part in elaboration.left or not ("dtype" in before or "torch_dtype" in before):
            continue
        config = copy.deepcopy(dict(before))
        outputs = [o for o in elaboration.graph.outputs if o.name.startswith(part.prefix)]
        views = [view for tensor, view in origin.tensors.items() if tensor.startswith(part.prefix)]
        set_dtype(config, outputs, origin, views)
        if config != before:
            found[f"{part.folder}/{CONFIG}"] = json_text(config)
    return found
