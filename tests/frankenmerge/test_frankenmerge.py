"""Models of other depths, built from layers: the tensors, the config and what transformers makes of
them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import mergec
import pytest
import torch
from merging import merge_folders

Make = Callable[..., Path]


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return config


def layer(tensors: dict[str, torch.Tensor], number: int, head: str = "model.layers") -> dict[str, torch.Tensor]:
    return {n[len(f"{head}.{number}.") :]: t for n, t in tensors.items() if n.startswith(f"{head}.{number}.")}


def assert_layers(out: Path, sources: list[tuple[Path, int]], head: str = "model.layers") -> None:
    """The output's layers are these, byte for byte, and there are no more."""
    made = checkpoints.load(out)
    depth = 1 + max(int(m[1]) for n in made if (m := re.match(re.escape(head) + r"\.(\d+)\.", n)))
    assert depth == len(sources)
    for k, (folder, number) in enumerate(sources):
        wanted = layer(checkpoints.load(folder), number, head)
        found = layer(made, k, head)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items()), k


STACK = "layers = stack(a.layers[0..2], b.layers[1..3])"


@pytest.mark.parametrize("family", ["llama", "llama-tied", "qwen2", "gemma2", "gemma3", "phi", "phi3", "mixtral"])
def test_a_stack_sets_the_depth(family: str, finetuned: Make, tmp_path: Path) -> None:
    a, b = finetuned(family, 1), finetuned(family, 2)
    merge_folders(f"* = a\n{STACK}\nnorm = b", tmp_path / "out", a=a, b=b)
    assert_layers(tmp_path / "out", [(a, 0), (a, 1), (a, 2), (b, 1), (b, 2), (b, 3)])
    config = config_of(tmp_path / "out")
    assert config["num_hidden_layers"] == 6
    kinds = config_of(a).get("layer_types")
    if kinds is not None:
        assert config["layer_types"] == [kinds[k] for k in (0, 1, 2, 1, 2, 3)]
    loaded = checkpoints.logits(tmp_path / "out")
    assert loaded.clean
    assert torch.isfinite(loaded.logits).all()


def test_per_layer_lists_are_in_the_configs_that_are_tested(finetuned: Make) -> None:
    assert len(set(config_of(finetuned("gemma2", 1))["layer_types"])) == 2
    assert len(set(config_of(finetuned("gemma3", 1))["layer_types"])) == 2


def test_gpt2_keeps_its_depth_under_another_key(finetuned: Make, tmp_path: Path) -> None:
    a, b = finetuned("gpt2", 1), finetuned("gpt2", 2)
    merge_folders(f"* = a\n{STACK}", tmp_path / "out", a=a, b=b)
    assert_layers(tmp_path / "out", [(a, 0), (a, 1), (a, 2), (b, 1), (b, 2), (b, 3)], "transformer.h")
    assert config_of(tmp_path / "out")["n_layer"] == 6
    assert checkpoints.logits(tmp_path / "out").clean


def test_one_stack_of_two(finetuned: Make, tmp_path: Path) -> None:
    a, b = finetuned("t5", 1), finetuned("t5", 2)
    recipe = "* = a\nencoder.layers = stack(a.encoder.layers[0..1], b.encoder.layers[1..3])"
    merge_folders(recipe, tmp_path / "out", a=a, b=b)
    config = config_of(tmp_path / "out")
    assert (config["num_layers"], config["num_decoder_layers"]) == (5, 3)
    assert checkpoints.logits(tmp_path / "out").clean


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_pruning_and_repeating(family: str, finetuned: Make, tmp_path: Path) -> None:
    a = finetuned(family, 1)
    merge_folders("* = a\nlayers = stack(a.layers[0], a.layers[3], a.layers[3])", tmp_path / "out", a=a)
    assert_layers(tmp_path / "out", [(a, 0), (a, 3), (a, 3)])
    merge_folders("output(layers=2)\n* = a\nlayers = a.layers[0..1]", tmp_path / "pruned", a=a)
    assert_layers(tmp_path / "pruned", [(a, 0), (a, 1)])
    for name, depth in (("out", 3), ("pruned", 2)):
        assert config_of(tmp_path / name)["num_hidden_layers"] == depth
        assert len(config_of(tmp_path / name).get("layer_types", [0] * depth)) == depth
        assert checkpoints.logits(tmp_path / name).clean


def test_layers_are_added_at_the_end(finetuned: Make, tmp_path: Path) -> None:
    a, b = finetuned("gemma2", 1), finetuned("gemma2", 2)
    merge_folders("output(like=a)\nlayers[4..5] = b.layers[2..3]", tmp_path / "out", a=a, b=b)
    assert_layers(tmp_path / "out", [(a, 0), (a, 1), (a, 2), (a, 3), (b, 2), (b, 3)])
    kinds = config_of(a)["layer_types"]
    assert config_of(tmp_path / "out")["layer_types"] == [*kinds, kinds[2], kinds[3]]
    assert checkpoints.logits(tmp_path / "out").clean


def test_a_merge_of_stacks(finetuned: Make, tmp_path: Path) -> None:
    """Parts of a stack may be computed, and later statements change layers of the deeper model."""
    a, b = finetuned("llama", 1), finetuned("llama", 2)
    recipe = """
    * = a
    layers = stack(a.layers[0..1], 0.5*a.layers[2..3] + 0.5*b.layers[0..1], b.layers[3])
    layers[4].mlp = a.layers[0].mlp
    layers[*].norm1 = passthrough(a.layers[0].norm1, scale=2)
    """
    with pytest.raises(mergec.MergecError, match="E0305: 1 on the right can't be matched with 5 on the left"):
        merge_folders(recipe, tmp_path / "none", a=a, b=b)
    merge_folders(recipe.replace("layers[*].norm1", "layers[2].norm1"), tmp_path / "out", a=a, b=b)
    out, one, two = (checkpoints.load(p) for p in (tmp_path / "out", a, b))
    q, up, norm = "self_attn.q_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight"
    torch.testing.assert_close(layer(out, 3)[q], (layer(one, 3)[q] + layer(two, 1)[q]) / 2, rtol=1e-5, atol=1e-7)
    assert torch.equal(layer(out, 4)[q], layer(two, 3)[q])
    assert torch.equal(layer(out, 4)[up], layer(one, 0)[up])
    torch.testing.assert_close(layer(out, 2)[norm], 2 * layer(one, 0)[norm])
    assert checkpoints.logits(tmp_path / "out").clean


def test_counts_that_differ_are_an_error(finetuned: Make, tmp_path: Path) -> None:
    a, b = finetuned("llama", 1), finetuned("llama", 2)
    with pytest.raises(mergec.MergecError, match="E0305"):
        merge_folders("* = a\nlayers[0..2] = b.layers[0..1]", tmp_path / "out", a=a, b=b)
