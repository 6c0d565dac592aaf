"""Stored tensors that are no parameters: copied from the template, whatever the recipe does;
integers that all inputs hold alike are copied too."""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import pytest
import torch
from merging import compile_folders, merge, merge_folders
from safetensors.torch import load_file, save_file

POSITIONS = torch.arange(16)[None]
LAYERS = 3


def encoder(seed: int, positions: torch.Tensor | None = POSITIONS) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    made = {
        "text_model.embeddings.token_embedding.weight": torch.randn(32, 8, generator=g),
        "text_model.embeddings.position_embedding.weight": torch.randn(16, 8, generator=g),
        "proj.weight": torch.randn(8, 8, generator=g),
    }
    return made if positions is None else made | {"text_model.embeddings.position_ids": positions.clone()}


def mean(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return ((one.double() + other.double()) / 2).to(one.dtype)


@pytest.mark.parametrize("other", [POSITIONS, POSITIONS + 1, None], ids=["equal", "different", "absent"])
def test_what_the_template_has_is_copied(other: torch.Tensor | None) -> None:
    a, b = encoder(1), encoder(2, other)
    out = merge("* = linear(a, b)", {"a": a, "b": b})
    assert out.keys() == a.keys()
    for name, tensor in out.items():
        expected = a[name] if name.endswith("position_ids") else mean(a[name], b[name])
        assert torch.equal(tensor, expected), name


def test_what_the_template_lacks_is_not_added() -> None:
    assert "text_model.embeddings.position_ids" not in merge(
        "* = linear(a, b)", {"a": encoder(1, None), "b": encoder(2)}
    )


def llama(folder: Path, seed: int, layers: int) -> dict[str, torch.Tensor]:
    """A Llama whose exporter stored rotary frequencies; here each layer has its own, to tell them
    apart."""
    g = torch.Generator().manual_seed(seed)
    made = {"model.embed_tokens.weight": torch.randn(16, 8, generator=g), "model.norm.weight": torch.ones(8)}
    for i in range(layers):
        made[f"model.layers.{i}.mlp.up_proj.weight"] = torch.randn(12, 8, generator=g)
        made[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.full((4,), 10.0 * seed + i)
    folder.mkdir()
    save_file(made, folder / "model.safetensors", {"format": "pt"})
    config = {"model_type": "llama", "num_hidden_layers": layers, "tie_word_embeddings": True, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    return made


def frequencies(tensors: dict[str, torch.Tensor]) -> list[float]:
    return [tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"][0].item() for i in range(len(tensors) // 2 - 1)]


def test_buffers_of_layers_follow_their_layers(tmp_path: Path) -> None:
    llama(tmp_path / "a", 1, LAYERS)
    llama(tmp_path / "b", 2, LAYERS)
    recipe = 'output(dtype="bfloat16")\n* = a\nlayers = stack(a.layers[0..1], b.layers[1..2], a.layers[2])'
    merge_folders(recipe, tmp_path / "out", a=tmp_path / "a", b=tmp_path / "b")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert frequencies(out) == [10.0, 11.0, 21.0, 22.0, 12.0]
    kept, cast = "model.layers.0.self_attn.rotary_emb.inv_freq", "model.norm.weight"
    assert (out[kept].dtype, out[cast].dtype) == (torch.float32, torch.bfloat16)


def test_an_output_with_buffers_verifies(tmp_path: Path) -> None:
    made = llama(tmp_path / "a", 1, LAYERS)
    merge_folders("* = a", tmp_path / "out", a=tmp_path / "a")
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert out.keys() == made.keys()
    assert all(torch.equal(tensor, made[name]) for name, tensor in out.items())
    checks = mergec.verify(tmp_path / "out").checks
    assert {c.name: [d.message for d in c.findings] for c in checks if c.findings} == {}


COUNTED = {"bn.weight": torch.randn(4), "bn.num_batches_tracked": torch.tensor(7), "mask": torch.tensor([True, False])}


@pytest.mark.parametrize("value", ["linear(a, b)", "a + 0.5*(b - a)", "ties(a, b, base=a)", "slerp(a, b, t=0.5)"])
def test_integers_that_all_inputs_hold_alike_are_copied(value: str) -> None:
    out = merge(f"* = {value}", {"a": COUNTED, "b": COUNTED | {"bn.weight": torch.randn(4)}})
    for name in ("bn.num_batches_tracked", "mask"):
        assert torch.equal(out[name], COUNTED[name])
        assert out[name].dtype == COUNTED[name].dtype


@pytest.mark.parametrize(
    "other",
    [
        {"bn.num_batches_tracked": torch.tensor(8)},
        {"bn.num_batches_tracked": torch.tensor(7, dtype=torch.int32)},
        {"mask": torch.tensor([True, True])},
    ],
)
def test_integers_that_differ_may_only_be_copied(other: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(COUNTED, tmp_path / "a.safetensors")
    save_file(COUNTED | other, tmp_path / "b.safetensors")
    with pytest.raises(mergec.MergecError, match="E0309"):
        compile_folders("* = linear(a, b)", a=tmp_path / "a.safetensors", b=tmp_path / "b.safetensors")
