"""Image models in two forms: single files, as their trainers and interfaces have them, and modules
or pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Sequence

from ...grammar.diagnostic import Diagnostic, Label, MergecError
from .model import Model

SINGLE_FILES = (
    ("conditioner.embedders.", "SDXL", "StableDiffusionXLPipeline"),
    ("model.diffusion_model.joint_blocks.", "Stable Diffusion 3", "StableDiffusion3Pipeline"),
    ("model.diffusion_model.double_blocks.", "Flux", "FluxTransformer2DModel"),
    ("double_blocks.", "Flux", "FluxTransformer2DModel"),
    ("model.diffusion_model.", "Stable Diffusion", "StableDiffusionPipeline"),
)
"""How names of tensors begin in single files, what these are, and the class of diffusers that reads
them; the most telling first."""

_MODULES = ("down_blocks.", "transformer_blocks.", "unet.down_blocks.", "transformer.transformer_blocks.")


def check_one_form(models: Sequence[Model]) -> None:
    """Sees that the inputs are not of both forms. Raises MergecError (E0482)."""
    modules = next((m for m in models if _is_module(m)), None)
    if modules is None:
        return
    for model in models:
        found = next((each for each in SINGLE_FILES if any(name.startswith(each[0]) for name in model.tensors)), None)
        if found is None or model is modules:
            continue
        _, title, reader = found
        command = f"from diffusers import {reader}; {reader}.from_single_file('FILE').save_pretrained('FOLDER')"
        raise MergecError(
            Diagnostic(
                "E0482",
                f"`{model.label}` is {title} in a single file, and `{modules.label}` is in the form of diffusers",
                (Label(model.span, "a single file"), Label(modules.span, "of diffusers")),
                ("the same weights have other names in the two, and some are fused in one of them",),
                (f'convert it with diffusers: `python -c "{command}"`, and name the folder',),
            )
        )


def _is_module(model: Model) -> bool:
    if model.checkpoint.config is None and not model.checkpoint.is_pipeline:
        return any(name.startswith(_MODULES) for name in model.tensors)
    return "_class_name" in model.config or model.checkpoint.is_pipeline
