"""Adapters on models that lack an optional tensor: whether the adapted model has it is the model's
affair, or the adapter's where it brings one."""

from __future__ import annotations

import json
from pathlib import Path

import lora_adapters
import mergec
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

WIDTH = 6
MODULE = "model.layers.{}.mlp.up_proj"
CONFIG = {"r": 2, "lora_alpha": 4, "target_modules": ["up_proj"]}
HAVE = {"base": (0, 1), "a": (0,), "b": (0, 1)}
"""The layers whose bias each model has."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llamas of two layers; an adapter of weights alone."""
    root = tmp_path_factory.mktemp("adapted")
    for seed, (name, layers) in enumerate(HAVE.items()):
        random = np.random.default_rng(seed)
        tensors = {"model.embed_tokens.weight": random.standard_normal((3, WIDTH)).astype(np.float32)}
        tensors["model.norm.weight"] = np.ones(WIDTH, np.float32)
        for i in (0, 1):
            tensors[f"{MODULE.format(i)}.weight"] = random.standard_normal((4, WIDTH)).astype(np.float32)
        tensors |= {f"{MODULE.format(i)}.bias": random.standard_normal(4).astype(np.float32) for i in layers}
        (root / name).mkdir()
        save_file(tensors, root / name / "model.safetensors")
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2}
        (root / name / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    shapes = {f"{MODULE.format(i)}.weight": torch.zeros(4, WIDTH) for i in (0, 1)}
    factors = lora_adapters.factors(shapes, [MODULE.format(i) for i in (0, 1)], 2)
    lora_adapters.write(root / "plain", factors, **CONFIG)
    return root


def merged(models: Path, out: Path, statement: str) -> dict[str, np.ndarray]:
    lets = "".join(f'let {name} = model("{models / name}")\n' for name in HAVE)
    lets += f'let plain = lora("{models / "plain"}")\n'
    mergec.compile(f"{lets}output(like=base)\n{statement}\n", device="cpu").run(out)
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize(
    "adapted", ["a + plain", "plain + a", "2*a + plain - plain", "a + 0.5*plain", "(plain - 2*plain) + a"]
)
def test_a_model_that_lacks_it_drops_out_with_its_adapter(adapted: str, models: Path, tmp_path: Path) -> None:
    """Numbers and adapters have no tensors of their own: they don't make one of a bias that the
    model lacks."""
    made = merged(models, tmp_path / "out", f"* = linear({adapted}, b, weight=[1, 3])")
    b, a = (load_file(models / n / "model.safetensors") for n in ("b", "a"))
    # at layer 1 a lacks the bias, so that b alone counts; at layer 0 both do
    np.testing.assert_allclose(made[f"{MODULE.format(1)}.bias"], b[f"{MODULE.format(1)}.bias"], rtol=1e-6)
    factor = 2 if adapted.startswith("2") else 1
    both = (factor * a[f"{MODULE.format(0)}.bias"] + 3 * b[f"{MODULE.format(0)}.bias"]) / 4
    np.testing.assert_allclose(made[f"{MODULE.format(0)}.bias"], both, rtol=1e-5)


def test_picked_from_an_adapted_model_it_counts_zero(models: Path, tmp_path: Path) -> None:
    made = merged(models, tmp_path / "out", "* = base\nlayers[0] = (a + plain).layers[1]")
    assert not made[f"{MODULE.format(0)}.bias"].any()
    a = load_file(models / "a" / "model.safetensors")
    adapter = load_file(models / "plain" / "adapter_model.safetensors")
    head = f"base_model.model.{MODULE.format(1)}"
    delta = 2 * adapter[f"{head}.lora_B.weight"].astype(np.float64) @ adapter[f"{head}.lora_A.weight"]
    wanted = a[f"{MODULE.format(1)}.weight"] + delta
    np.testing.assert_allclose(made[f"{MODULE.format(0)}.weight"], wanted, rtol=1e-5, atol=1e-6)


def test_one_on_its_own_says_nothing_of_a_model(models: Path, tmp_path: Path) -> None:
    """What is made of an adapter alone has every tensor: what it adds, which may be nothing."""
    made = merged(models, tmp_path / "out", "* = base + 0.5*linear(plain, plain, weight=[1, 1])")
    base = load_file(models / "base" / "model.safetensors")
    for i in (0, 1):
        np.testing.assert_array_equal(made[f"{MODULE.format(i)}.bias"], base[f"{MODULE.format(i)}.bias"])
