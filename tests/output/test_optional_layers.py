"""Layers matched one by one, of which only some have an optional tensor: each is made of its
own."""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

LAYERS = 4
BIAS, WEIGHT = "model.layers.{}.mlp.up_proj.bias", "model.layers.{}.mlp.up_proj.weight"
HAVE = {"base": (0, 1, 2, 3), "a": (0, 2), "b": (0, 1, 2, 3), "c": (), "d": (0, 1, 2)}
"""The layers whose bias each model has."""

Model = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("optional")
    for seed, (name, layers) in enumerate(HAVE.items()):
        random = np.random.default_rng(seed)
        tensors = {"model.embed_tokens.weight": random.standard_normal((3, 6)).astype(np.float32)}
        tensors["model.norm.weight"] = np.ones(6, np.float32)
        tensors |= {WEIGHT.format(i): random.standard_normal((4, 6)).astype(np.float32) for i in range(LAYERS)}
        tensors |= {BIAS.format(i): random.standard_normal(4).astype(np.float32) for i in layers}
        (root / name).mkdir()
        save_file(tensors, root / name / "model.safetensors")
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": LAYERS}
        (root / name / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    return root


@pytest.fixture(scope="module")
def models(folders: Path) -> dict[str, Model]:
    return {name: load_file(folders / name / "model.safetensors") for name in HAVE}


def merged(folders: Path, out: Path, statements: str) -> Model:
    lets = "".join(f'let {name} = model("{folders / name}")\n' for name in HAVE)
    mergec.compile(f"{lets}output(like=base)\n* = base\n{statements}\n", device="cpu").run(out)
    return load_file(out / "model.safetensors")


def mean(models: dict[str, Model], picks: dict[str, tuple[int, float]]) -> np.ndarray:
    """The weighted mean of the biases that are there: of each model a layer and a weight."""
    there = [(models[m].get(BIAS.format(layer)), weight) for m, (layer, weight) in picks.items()]
    found = [(bias.astype(np.float64), weight) for bias, weight in there if bias is not None]
    return sum(bias * weight for bias, weight in found) / sum(weight for _, weight in found)


@pytest.mark.parametrize("part", ["", ".mlp", ".mlp.up"])
def test_whole_and_in_their_order(part: str, folders: Path, models: dict[str, Model], tmp_path: Path) -> None:
    value = f"linear(a.layers[0..3]{part}, b.layers[0..3]{part}, weight=[1, 3])"
    made = merged(folders, tmp_path / "out", f"layers[0..3]{part} = {value}")
    for i in range(LAYERS):
        np.testing.assert_allclose(made[BIAS.format(i)], mean(models, {"a": (i, 1), "b": (i, 3)}), rtol=1e-5)


def test_from_the_other_end(folders: Path, models: dict[str, Model], tmp_path: Path) -> None:
    statements = "\n".join(
        f"layers[{i}] = linear(a.layers[{3 - i}], b.layers[{i}], weight=[1, 3])" for i in range(LAYERS)
    )
    made = merged(folders, tmp_path / "out", statements)
    for i in range(LAYERS):
        np.testing.assert_allclose(made[BIAS.format(i)], mean(models, {"a": (3 - i, 1), "b": (i, 3)}), rtol=1e-5)
        weights = [models[m][WEIGHT.format(j)].astype(np.float64) for m, j in (("a", 3 - i), ("b", i))]
        np.testing.assert_allclose(made[WEIGHT.format(i)], weights[0] / 4 + 0.75 * weights[1], rtol=1e-5, atol=1e-6)


def test_shifted_and_with_one_that_has_none(folders: Path, models: dict[str, Model], tmp_path: Path) -> None:
    value = "linear(a.layers[1..2], b.layers[2..3], c.layers[0..1], weight=[1, 3, 5])"
    made = merged(folders, tmp_path / "out", f"layers[0..1] = {value}")
    for i in range(2):
        wanted = mean(models, {"a": (i + 1, 1), "b": (i + 2, 3), "c": (i, 5)})
        np.testing.assert_allclose(made[BIAS.format(i)], wanted, rtol=1e-5)


def test_what_varies_varies_where_it_is_asked_for(folders: Path, models: dict[str, Model], tmp_path: Path) -> None:
    """Under an explicit place numbers vary over its own layers: a choice by `layer` is made
    there."""
    value = "linear((a if layer < 1 else b), (b if layer < 1 else a), weight=[1, 3])"
    made = merged(folders, tmp_path / "out", f"let mixed = {value}\nlayers[0..1] = mixed.layers[1..2]")
    for i in range(2):
        # both picked layers are past the first, so that `b` comes before `a`
        wanted = mean(models, {"b": (i + 1, 1), "a": (i + 1, 3)})
        np.testing.assert_allclose(made[BIAS.format(i)], wanted, rtol=1e-5)


@pytest.mark.parametrize("order", ["b a d", "b d a", "a b d", "d a b"])
@pytest.mark.parametrize("of", ["{}.layers[0..3]", "(1*{}).layers[0..3]", "(0.5*{0} + 0.5*{0}).layers[0..3]", "{}"])
def test_each_lacks_it_in_layers_of_its_own(
    order: str, of: str, folders: Path, models: dict[str, Model], tmp_path: Path
) -> None:
    """Where one lacks it, which of the others have it counts as well: two such layers may be
    unlike."""
    weight = {"b": 3, "a": 1, "d": 2}
    values = ", ".join(of.format(name) for name in order.split())
    numbers = [weight[name] for name in order.split()]
    made = merged(folders, tmp_path / "out", f"layers[0..3] = linear({values}, weight={numbers})")
    for i in range(LAYERS):
        wanted = mean(models, {name: (i, weight[name]) for name in order.split()})
        np.testing.assert_allclose(made[BIAS.format(i)], wanted, rtol=1e-5)


def test_a_whole_model_beside_a_picked_one(folders: Path, models: dict[str, Model], tmp_path: Path) -> None:
    """The one is asked for at the output's layer, the other where it is picked."""
    made = merged(folders, tmp_path / "out", "layers[0..1] = 0.25*b + 0.75*d.layers[1..2]\nlayers[2..3] = 2*b")
    for i in range(2):
        for name in (WEIGHT, BIAS):
            b, d = (models[m][name.format(j)].astype(np.float64) for m, j in (("b", i), ("d", i + 1)))
            np.testing.assert_allclose(made[name.format(i)], 0.25 * b + 0.75 * d, rtol=1e-5, atol=1e-6)
