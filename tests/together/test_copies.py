"""Copies of quantised models, run: the bytes are those of one model each, and what is copied still
says the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import mergec
from safetensors.torch import load_file, save_file

LAYERS, WIDTH = 3, 16


def fp8(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """A small Llama in block fp8; its weights, dequantised."""
    generator = torch.Generator().manual_seed(seed)
    stored: dict[str, torch.Tensor] = {}
    true: dict[str, torch.Tensor] = {}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        stored[name] = torch.randn(8, WIDTH, generator=generator).bfloat16()
    stored["model.norm.weight"] = torch.ones(WIDTH).bfloat16()
    for layer in range(LAYERS):
        for module in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
            name = f"model.layers.{layer}.{module}.weight"
            weight = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
            scale = (weight.abs().max() / 448 * seed).float()
            stored[name] = (weight / scale).to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = scale.reshape(1, 1)
            true[name] = stored[name].double() * scale.double()
    folder.mkdir()
    save_file(stored, folder / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 8,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [WIDTH, WIDTH]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return true


def merged(folder: Path, statements: str) -> dict[str, torch.Tensor]:
    recipe = folder / "r.mrg"
    recipe.write_text(f'let a = model("./a")\nlet b = model("./b")\n{statements}\n')
    done = mergec(recipe, "-o", folder / "out", folder=folder)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "out" / "model.safetensors")


@pytest.mark.parametrize(
    ("statements", "layers"),
    [
        ("* = a", "aaa"),
        ("* = a\nlayers[1] = b", "aba"),
        ("* = a\nlayers[*].mlp = b", None),
        ("output(like=a)\nlayers = stack(a.layers[0..1], b.layers[0..1], a.layers[2])", "01ab2"),
        ("* = a\nlayers[2].attn = b\nembed = b", None),
    ],
)
def test_weights_keep_their_scales(tmp_path: Path, statements: str, layers: str | None) -> None:
    true = {"a": fp8(tmp_path / "a", 1), "b": fp8(tmp_path / "b", 3)}
    out = merged(tmp_path, statements)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "fp8", "weight_block_size": [WIDTH, WIDTH]}
    origin = {"aaa": ["a0", "a1", "a2"], "aba": ["a0", "b1", "a2"], "01ab2": ["a0", "a1", "b0", "b1", "a2"]}
    for name in out:
        if name.endswith("_proj.weight"):
            layer, rest = int(name.split(".")[2]), name.split(".", 3)[3]
            if layers is not None:
                source = origin[layers][layer]
            elif "[*].mlp" in statements:
                source = f"{'b' if rest.startswith('mlp') else 'a'}{layer}"
            else:
                source = f"{'b' if rest.startswith('self_attn') and layer == 2 else 'a'}{layer}"
            got = out[name].double() * out[f"{name}_scale_inv"].double()
            assert torch.equal(got, true[source[0]][f"model.layers.{source[1]}.{rest}"]), name


def test_a_mean_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for seed, name in enumerate("ab", 1):
        fp8(tmp_path / name, seed)
    (tmp_path / "r.mrg").write_text('let a = model("./a")\nlet b = model("./b")\n* = linear(a, b)\n')
    done = mergec(tmp_path / "r.mrg", "-o", tmp_path / "out", folder=tmp_path)
    said = done.stderr.decode()
    assert (done.returncode, "E0456" in said) == (1, True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "r.mrg"]
    # the ways out that the help shows
    assert "quantization_config=FineGrainedFP8Config(dequantize=True)" in said
    assert "* = a" in said
