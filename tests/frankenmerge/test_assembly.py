"""A place map of regions is a model put together from parts, with layers of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import checkpoints
import mergec
import pytest
import torch
from merging import merge_folders

Make = Callable[..., Path]
TALL = "{layers: stack(a.layers[0..2], b.layers[1..3]), norm: b, _: a}"
WHERE = [("a", 0), ("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)]


@pytest.fixture
def models(checkpoint: Make, finetuned: Make) -> dict[str, Path]:
    return {"base": checkpoint("llama"), "a": finetuned("llama", 1), "b": finetuned("llama", 2)}


def tall(models: dict[str, Path]) -> dict[str, torch.Tensor]:
    """The model of TALL, put together by hand."""
    loaded = {name: checkpoints.load(folder) for name, folder in models.items()}
    out = {name: t for name, t in loaded["a"].items() if ".layers." not in name}
    out["model.norm.weight"] = loaded["b"]["model.norm.weight"]
    for j, (model, i) in enumerate(WHERE):
        head = f"model.layers.{i}."
        out |= {n.replace(head, f"model.layers.{j}."): t for n, t in loaded[model].items() if n.startswith(head)}
    return out


def equal(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    made = checkpoints.load(folder)
    assert made.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(made[name], tensor, rtol=1e-6, atol=1e-7, msg=name)


def test_whole(models: dict[str, Path], tmp_path: Path) -> None:
    merge_folders(f"let tall = {TALL}\n* = tall", tmp_path / "out", **models)
    equal(tmp_path / "out", tall(models))
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["num_hidden_layers"] == 6
    assert checkpoints.logits(tmp_path / "out").clean


def test_in_a_method(models: dict[str, Path], tmp_path: Path) -> None:
    recipe = f"let tall = {TALL}\nlet flat = {{layers: stack(base.layers[*], base.layers[2..3]), _: base}}\n"
    merge_folders(recipe + "* = 0.25*tall + 0.75*flat", tmp_path / "out", **models)
    base = checkpoints.load(models["base"])
    wanted = {}
    for name, tensor in tall(models).items():
        parts = name.split(".")
        if ".layers." in name and int(parts[2]) > 3:
            parts[2] = str(int(parts[2]) - 2)
        wanted[name] = 0.25 * tensor + 0.75 * base[".".join(parts)]
    equal(tmp_path / "out", wanted)


def test_layers_of_it_and_one_within_another(models: dict[str, Path], tmp_path: Path) -> None:
    recipe = f"""
    let tall = {TALL}
    let cut = {{layers: stack(tall.layers[5], tall.layers[2..4]), embed: base, _: tall}}
    * = cut
    layers[0] = tall.layers[3]
    """
    merge_folders(recipe, tmp_path / "out", **models)
    whole = tall(models)
    wanted = {n: t for n, t in whole.items() if ".layers." not in n}
    wanted["model.embed_tokens.weight"] = checkpoints.load(models["base"])["model.embed_tokens.weight"]
    for j, i in enumerate((3, 2, 3, 4)):
        head = f"model.layers.{i}."
        wanted |= {n.replace(head, f"model.layers.{j}."): t for n, t in whole.items() if n.startswith(head)}
    equal(tmp_path / "out", wanted)


def test_numbers_vary_over_its_own_layers(models: dict[str, Path], tmp_path: Path) -> None:
    recipe = """
    let tall = {layers: stack(a.layers[*], a.layers[*]), _: a}
    let faded = (1 - depth)*tall
    output(layers=2)
    * = base
    layers = stack(faded.layers[0], faded.layers[7])
    layers[1].mlp = layer*faded.layers[3].mlp
    """
    merge_folders(recipe, tmp_path / "out", **models)
    a, made = checkpoints.load(models["a"]), checkpoints.load(tmp_path / "out")
    up, norm = "mlp.up_proj.weight", "input_layernorm.weight"
    assert torch.equal(made[f"model.layers.0.{up}"], a[f"model.layers.0.{up}"])
    assert not made[f"model.layers.1.{norm}"].any()
    torch.testing.assert_close(made[f"model.layers.1.{up}"], (1 - 3 / 7) * a[f"model.layers.3.{up}"])


def test_roles_globs_and_places(models: dict[str, Path], tmp_path: Path) -> None:
    recipe = '* = {attn: a, "*up_proj.weight": b, layers[2..3]: b.layers[0..1], _: 0.5*base}'
    merge_folders(recipe, tmp_path / "out", **models)
    base, a, b = (checkpoints.load(models[n]) for n in ("base", "a", "b"))
    wanted = {}
    for name, tensor in base.items():
        if "up_proj" in name:
            wanted[name] = b[name]
        elif "self_attn" in name:
            wanted[name] = a[name]
        elif ".layers.2." in name or ".layers.3." in name:
            wanted[name] = b[name.replace(".2.", ".0.").replace(".3.", ".1.")]
        else:
            wanted[name] = 0.5 * tensor
    equal(tmp_path / "out", wanted)


@pytest.mark.parametrize(
    ("recipe", "code"),
    [
        ("* = {layers: stack(a.layers[0..1]), _: 1}", "E0208"),
        ("* = {laysers: a, _: b}", "E0301"),
        ("* = {attn: a}", "E0306"),
        ("* = {head: tie(embed), _: a}", "E0312"),
        ("* = {layers: stack(a.layers[0..1]), _: a} + b", "E0315"),
        ("* = {layers[0..1]: b.layers[0..2], _: a}", "E0305"),
    ],
)
def test_what_makes_no_model(recipe: str, code: str, models: dict[str, Path]) -> None:
    lets = "".join(f'let {name} = model("{folder}")\n' for name, folder in models.items())
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(lets + recipe, device="cpu")
    assert code in [d.code for d in caught.value.diagnostics]
