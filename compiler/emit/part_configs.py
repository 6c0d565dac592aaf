"""Configs of the output's parts: the template's, but for the dtype that its tensors have."""

from __future__ import annotations

import copy

from ..checkpoint.catalog import Catalog
from ..checkpoint.documents import json_beside, json_text, said_of
from ..checkpoint.model import Model
from ..elaborate.elaborate import Elaboration
from .config import set_dtype
from .token_ids import CONFIG


def part_configs(catalog: Catalog, elaboration: Elaboration, origin: Model) -> dict[str, str]:
    """Name to text of config.json of each part in a folder of its own, where it says a dtype that
    is another now."""
    found: dict[str, str] = {}
    for part in origin.checkpoint.parts:
        name = f"{part.folder}/{CONFIG}"
        if not part.folder or part in elaboration.left or name not in origin.checkpoint.extras:
            continue
        with said_of(origin):
            before = json_beside(catalog, origin.checkpoint, name) or {}
        config = copy.deepcopy(before)
        if any(key in config for key in ("dtype", "torch_dtype")):
            outputs = [o for o in elaboration.graph.outputs if o.name.startswith(part.prefix)]
            views = [view for tensor, view in origin.tensors.items() if tensor.startswith(part.prefix)]
            set_dtype(config, outputs, origin, views)
        if config != before:
            found[name] = json_text(config)
    return found
