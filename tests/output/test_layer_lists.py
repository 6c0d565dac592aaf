"""Lists of config.json with an entry a layer follow the layers: each output layer has that of where
it is from."""

from __future__ import annotations

import json
from typing import Any

import mergec
import pytest

WIDTH = 4


def model(label: str, layers: int) -> dict[str, Any]:
    tensors = {"model.embed_tokens.weight": ("F32", (8, WIDTH)), "model.norm.weight": ("F32", (WIDTH,))}
    tensors |= {f"model.layers.{i}.mlp.up_proj.weight": ("F32", (WIDTH, WIDTH)) for i in range(layers)}
    config = {"model_type": "llama", "num_hidden_layers": layers, "vocab_size": 8, "tie_word_embeddings": True}
    return {"tensors": tensors, "config": config | {"layer_types": [f"{label}{i}" for i in range(layers)]}}


MODELS = {"a": model("a", 4), "b": model("b", 4), "deep": model("d", 6)}
LETS = "".join(f'let {name} = model("{name}")\n' for name in MODELS)


@pytest.mark.parametrize(
    ("statements", "wanted"),
    [
        ("* = b", "a0 a1 a2 a3"),
        ("* = linear(a, b)", "a0 a1 a2 a3"),
        ("* = a\nlayers = stack(b.layers[2..3], a.layers[0])", "b2 b3 a0"),
        ("* = a\nlayers[1] = b.layers[3]", "a0 b3 a2 a3"),
        ("* = a\nlayers[1..2] = b.layers[2..3]", "a0 b2 b3 a3"),
        ("* = a\nlayers[1..2] = slerp(b.layers[2..3], a.layers[0..1], t=0.5)", "a0 b2 b3 a3"),
        ("* = a\nlayers[1] = b", "a0 a1 a2 a3"),
        ("* = {layers: stack(deep.layers[3..5], b.layers[0]), _: a}", "d3 d4 d5 b0"),
        ("* = a\nlayers[0] = {layers: stack(deep.layers[3..5], b.layers[0]), _: a}.layers[3]", "b0 a1 a2 a3"),
        # of a stack, a later statement may take some layers
        ("* = a\nlayers = stack(b.layers[2..3])\nlayers[0] = deep.layers[5]", "d5 b3"),
        ("* = a\nlayers = stack(b.layers[0..3])\nlayers[2..3] = a.layers[0..1]", "b0 b1 a0 a1"),
        ("* = a\nlayers[1..3] = b.layers[0..2]\nlayers[2] = deep.layers[0]", "a0 b0 d0 b2"),
        # a later statement for all layers counts, and one for a part of each layer changes nothing
        # of it
        ("* = a\nlayers[0] = b.layers[3]\nlayers[0].mlp = deep.layers[5].mlp", "d5 a1 a2 a3"),
    ],
)
def test_each_layer_has_its_own(statements: str, wanted: str) -> None:
    made = mergec.compile(f"{LETS}output(like=a)\n{statements}\n", catalog=mergec.MemoryCatalog(MODELS), device="cpu")
    (text,) = [d.text for d in made.plan.documents if d.name == "config.json"]
    config = json.loads(text)
    assert config["layer_types"] == wanted.split()
    assert config["num_hidden_layers"] == len(wanted.split())


@pytest.mark.parametrize("odd", [["x"] * 7, ["x"], [], "full", None, {"0": "x"}])
def test_what_is_no_list_of_the_layers_stays(odd: object) -> None:
    a = {**MODELS["a"], "config": MODELS["a"]["config"] | {"layer_types": odd}}
    recipe = 'let a = model("a")\n* = a\nlayers = stack(a.layers[2..3])\n'
    made = mergec.compile(recipe, catalog=mergec.MemoryCatalog({"a": a}), device="cpu")
    (text,) = [d.text for d in made.plan.documents if d.name == "config.json"]
    config = json.loads(text)
    assert config["layer_types"] == odd
    assert config["num_hidden_layers"] == 2
