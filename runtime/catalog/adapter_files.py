"""What `lora(…)` finds where there is no adapter of PEFT's."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...compiler.checkpoint.adapter_formats import factors_among
from ...compiler.checkpoint.catalog import CatalogError
from ...compiler.checkpoint.factors import fused
from ..files.faults import show
from .folders import check_inside
from .weights import read_weights

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_PICKLE = "adapter_model.bin"

_MOST_FILES = 8


def no_adapter(location: str, source: str, missing: str) -> CatalogError:
    """The error for a file, or a folder without the file `missing`: it names the tool whose adapter
    is there instead.

    Raises CatalogError as `read_weights` does, for a file that is not sound.
    """
    for path in _weights(location):
        found = factors_among(read_weights(path).tensors)
        if found is not None and found.tool != "peft":
            return CatalogError(
                "E0459",
                f"`{show(source)}` is an adapter in {show(found.title)}, which can't be applied yet",
                notes=("`lora(…)` applies the folders that PEFT's `save_pretrained` writes",),
                help=(fused(found),),
            )
    if os.path.isfile(location):
        beside = os.path.exists(os.path.join(os.path.dirname(location), ADAPTER_CONFIG))
        help = (
            f"name its folder, in which `{ADAPTER_CONFIG}` is" if beside else f"name a folder with `{ADAPTER_CONFIG}`"
        )
        return CatalogError("E0450", f"`{show(source)}` is a file, not an adapter's folder", help=(help,))
    help = "name a folder that PEFT's `save_pretrained` wrote"
    return CatalogError("E0450", f"no adapter in `{show(source)}`: it has no `{missing}`", help=(help,))


def _weights(location: str) -> Iterator[str]:
    """The safetensors files there, the first few of a folder."""
    if os.path.isfile(location):
        if location.endswith(".safetensors"):
            yield location
        return
    names = sorted(name for name in os.listdir(location) if name.endswith(".safetensors"))
    for name in names[:_MOST_FILES]:
        yield check_inside(location, name)
