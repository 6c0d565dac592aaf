"""Checkpoints that hold the factors of adapters: a product of means is not the mean of products."""

from __future__ import annotations

from .adapter_formats import Factors, factors_among
from .bundles import Bundles, parts_of
from .catalog import Checkpoint

_ADDED = "name the folder of each adapter with `lora(…)`, which adds products: `base + 0.5*lora(…) + 0.5*lora(…)`"
_UNWRAPPED = (
    "save each model with its adapters merged into it: `model.merge_and_unload().save_pretrained(FOLDER)` of PEFT"
)
_FUSED = {
    "mlx": "fuse the adapter into its model first, with `mlx_lm.fuse`, and name what that writes",
    "loralib": "save the model with its adapter merged into it (`model.eval()` of loralib does), and name that",
    "peft": _UNWRAPPED,
}
_DIFFUSERS = (
    "fuse the adapter into its model first, with diffusers: `pipe.load_lora_weights(…)`, `pipe.fuse_lora()` and"
    " `pipe.save_pretrained(FOLDER)`; and name what that writes"
)


def factors_of(checkpoint: Checkpoint) -> Bundles | None:
    """The factors of adapters that a checkpoint holds; None where there are none."""
    found = factors_among(checkpoint.tensors)
    if found is None:
        return None
    apart = len(checkpoint.tensors) == len(found.modules) and not any(n.endswith("layer.weight") for n in found.modules)
    count = f"{found.count} factor{'s' * (found.count != 1)}"
    what = "an adapter" if apart else "a model with adapters inside"
    return Bundles(
        "E0458",
        f"{what}, {count} in {found.title}",
        "a factor means something only in its product, and the product of means is not the mean of products",
        "the other factors of its module",
        (_ADDED if found.tool == "peft" and apart else fused(found),),
        found.modules,
        parts_of(found.modules),
    )


def fused(found: Factors) -> str:
    """How an adapter is brought into its model by the tools of those who share its naming."""
    return _FUSED.get(found.tool, _DIFFUSERS)
