"""Adapters as PEFT writes them, and what they do to a model, naively: whole tensors, float64,
formula by formula."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

PREFIX = "base_model.model."
Tensors = dict[str, torch.Tensor]


def write(folder: Path, tensors: Mapping[str, torch.Tensor], **config: Any) -> Path:
    """An adapter's folder; tensors by their names without the prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {PREFIX + name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}), "utf-8")
    return folder


def normal(*shape: int, seed: int) -> torch.Tensor:
    """Normally distributed numbers, the same ones each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def factors(
    base: Mapping[str, torch.Tensor],
    modules: Sequence[str],
    rank: int = 4,
    *,
    seed: int = 0,
    turned: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensors:
    """A and B for each module: of `Linear` ones, or of those that keep their inputs along the first
    axis."""
    generator = torch.Generator().manual_seed(seed)
    out: Tensors = {}
    for module in modules:
        first, *rest = base[f"{module}.weight"].shape
        inputs, outputs = ((first,), rest[0]) if turned else (tuple(rest), first)
        ones = (1,) * (len(inputs) - 1)
        a, b = (torch.randn(*shape, generator=generator) * 0.3 for shape in ((rank, *inputs), (outputs, rank, *ones)))
        out[f"{module}.lora_A.weight"], out[f"{module}.lora_B.weight"] = a.to(dtype), b.to(dtype)
    return out


def applied(
    base: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The model with the adapter applied, by names of the model's tensors."""
    wide = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    out = {name: tensor.double().numpy() for name, tensor in base.items()}
    for name, tensor in wide.items():
        plain = re.sub(r"\.(base_layer|modules_to_save)\.", ".", name)
        if "lora_" not in plain:
            out[plain] = tensor
    for name in wide:
        found = re.fullmatch(r"(.+)\.lora_(A\.weight|embedding_A)", name)
        if found is None:
            continue
        module, embedding = found[1], "embedding" in found[2]
        a, b = wide[name], wide[name.replace("_A", "_B")]
        rank = _pattern(config.get("rank_pattern", {}), module, config["r"])
        alpha = _pattern(config.get("alpha_pattern", {}), module, config["lora_alpha"])
        assert a.shape[0] == rank
        scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        weight = out[f"{module}.weight"]
        delta = scale * b.reshape(len(b), rank) @ a.reshape(rank, -1)
        turned = embedding or (config.get("fan_in_fan_out", False) and weight.ndim == 2)
        value = weight + (delta.T if turned else delta).reshape(weight.shape)
        magnitude = wide.get(f"{module}.lora_magnitude_vector")
        if magnitude is not None:
            axes = 0 if turned else tuple(range(1, value.ndim))
            norm = np.sqrt((value**2).sum(axes, keepdims=True))
            value = value * (magnitude.reshape(norm.shape) / norm)
        out[f"{module}.weight"] = value
        bias = wide.get(f"{module}.lora_B.bias")
        if bias is not None:
            out[f"{module}.bias"] = out[f"{module}.bias"] + scale * bias
    return out


def _pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    return next((v for k, v in patterns.items() if re.match(rf"(.*\.)?({k})$", module)), default)
