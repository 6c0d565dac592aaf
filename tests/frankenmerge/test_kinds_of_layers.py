"""Layers of several kinds in a new order: the output computes what the same blocks do that are put
together in memory."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import mergec
import pytest
import torch
import transformers

from .kinds import BASE, KINDS, Kind

TOKENS = torch.tensor([[(7 * k) % 50 + 3 for k in range(24)]])
_DEPTHS = ("num_hidden_layers", "num_layers")
_DERIVED = ("layers_block_type", "layer_types")
_QUICK = ("gemma2", "gemma3_text", "qwen2", "qwen3_moe", "deepseek_v3", "smollm3", "recurrent_gemma", "gpt_neo")


def build(kind: Kind, folder: Path) -> type[Any]:
    """Saves a small model with random weights; its class."""
    depth = {"num_layers" if kind.type == "gpt_neo" else "num_hidden_layers": kind.layers}
    if kind.type == "nemotron_h":
        depth = {}
    config = transformers.AutoConfig.for_model(kind.type, **{**BASE, **depth, **kind.config})
    config._attn_implementation = "eager"
    autos = (transformers.AutoModelForCausalLM, transformers.AutoModelForMaskedLM)
    made = next(auto._model_mapping[type(config)] for auto in autos if type(config) in auto._model_mapping)
    torch.manual_seed(0)
    model = made(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder)
    return made


def load(folder: Path, made: type[Any]) -> Any:
    """The model in float64, every tensor of it found."""
    model, info = made.from_pretrained(
        folder,
        output_loading_info=True,
        dtype=torch.float64,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    found = {key: sorted(map(str, info[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    assert not any(found.values()), found
    return model.eval()


def rebuilt(model: Any, order: list[int]) -> Any:
    """The model with its blocks in another order. Each keeps what it is; its number is the place of
    its state."""
    model = copy.deepcopy(model)
    lists = [name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    name = min(lists, key=lambda name: name.count("."))
    blocks, (outer, _, inner) = model.get_submodule(name), name.rpartition(".")
    made = [copy.deepcopy(blocks[k]) for k in order]
    for number, block in enumerate(made):
        for module in block.modules():
            for attribute in ("layer_idx", "layer_id"):
                if isinstance(getattr(module, attribute, None), int):
                    setattr(module, attribute, number)
    setattr(model.get_submodule(outer), inner, torch.nn.ModuleList(made))
    # what runs the blocks asks the config for the masks that they need, and for their number
    for config in {id(c): c for module in model.modules() if (c := getattr(module, "config", None))}.values():
        for key, value in list(vars(config).items()):
            if isinstance(value, list) and len(value) == len(blocks):
                setattr(config, key, [value[k] for k in order])
        own = {
            key: getattr(config, key, None)
            for key in _DERIVED
            if isinstance(getattr(type(config), key, None), property)
        }
        moved = {k: [v[n] for n in order] for k, v in own.items() if isinstance(v, list) and len(v) == len(blocks)}
        if moved:
            config.__class__ = type("Moved", (type(config),), moved)
        for key in _DEPTHS:
            if getattr(config, key, None) == len(blocks) and key in vars(config):
                setattr(config, key, len(order))
    return model


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        cached = {} if isinstance(model.config, transformers.ModernBertConfig) else {"use_cache": False}
        return model(input_ids=TOKENS, **cached).logits


def _cases() -> list[Any]:
    found = []
    for kind in KINDS:
        marks = () if kind.type in _QUICK else (pytest.mark.slow,)
        found.append(pytest.param(kind, False, id=kind.type, marks=marks))
        if kind.unsaid:
            found.append(pytest.param(kind, True, id=f"{kind.type} as published", marks=marks))
    return found


@pytest.mark.parametrize(("kind", "published"), _cases())
def test_logits(kind: Kind, published: bool, tmp_path: Path) -> None:
    made = build(kind, tmp_path / "a")
    if published:
        file = tmp_path / "a" / "config.json"
        config = {k: v for k, v in json.loads(file.read_text()).items() if k not in kind.unsaid} | kind.said
        file.write_text(json.dumps(config))
    parts = ", ".join(f"a.layers[{first}..{last}]" for first, last in kind.parts)
    recipe = f'let a = model("{tmp_path / "a"}")\n* = a\nlayers = stack({parts})\n'
    compiled = mergec.compile(recipe, device="cpu")
    assert not compiled.diagnostics
    compiled.run(tmp_path / "out")
    source = load(tmp_path / "a", made)
    wanted = logits(rebuilt(source, kind.order))
    assert (wanted - logits(source)).abs().max() > 1e-3
    torch.testing.assert_close(logits(load(tmp_path / "out", made)), wanted, rtol=1e-9, atol=1e-9)
