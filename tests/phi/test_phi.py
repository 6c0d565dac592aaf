"""Phi-2 before and after its port: models in both layouts merge with no extra word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import reference
import torch
from merging import merge_folders

Make = Callable[..., Path]
TIES = "* = ties(ft1, ft2, density=0.5, weight=[0.5, 0.3], normalize=true)"


@pytest.fixture(scope="module")
def folders(checkpoint: Make, finetuned: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base in the library's layout, two fine-tunes in the old one, and `new1`, `new2`: these
    before conversion."""
    root = tmp_path_factory.mktemp("phi")
    out = {"base": checkpoint("phi")}
    for k in (1, 2):
        out[f"new{k}"] = finetuned("phi", k)
        out[f"ft{k}"] = root / f"ft{k}"
        shutil.copytree(out[f"new{k}"], out[f"ft{k}"])
        checkpoints.to_old_phi(out[f"ft{k}"])
    return out


@pytest.fixture(scope="module")
def by_hand(folders: dict[str, Path]) -> dict[str, torch.Tensor]:
    """The merge of the fine-tunes in the library's layout, naively, in float16."""
    base, one, two = (checkpoints.load(folders[k]) for k in ("base", "new1", "new2"))
    merged = {}
    for name, tensor in base.items():
        start = tensor.double().numpy()
        arrays = [model[name].double().numpy() for model in (one, two)]
        vectors = reference.trimmed(arrays, start, [0.5, 0.5], None)
        merged[name] = torch.tensor(np.asarray(reference.elected(start, vectors, [0.5, 0.3], True, 1).value)).half()
    return merged


def close(made: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert made.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert made[name].dtype == tensor.dtype
        torch.testing.assert_close(made[name].float(), tensor.float(), rtol=1.1e-3, atol=1e-6, msg=name)


def pick(folders: dict[str, Path], *names: str) -> dict[str, Path]:
    return {name: folders[name] for name in names}


def test_a_new_base_and_old_fine_tunes(
    folders: dict[str, Path], by_hand: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    recipe = f'output(dtype="float16")\n{TIES}'
    compiled = merge_folders(recipe, tmp_path / "out", **pick(folders, "base", "ft1", "ft2"))
    assert [d.code for d in compiled.diagnostics] == []
    close(checkpoints.load(tmp_path / "out"), by_hand)
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["model_type"] == "phi"
    assert config.get("dtype", config.get("torch_dtype")) == "float16"
    shutil.copytree(folders["base"], tmp_path / "hand")
    checkpoints.store(by_hand, tmp_path / "hand")
    one, two = checkpoints.logits(tmp_path / "out"), checkpoints.logits(tmp_path / "hand")
    assert one.clean
    torch.testing.assert_close(one.logits, two.logits, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("way", ['output(dtype="float16", layout="mixformer")', 'output(dtype="float16", like=ft1)'])
def test_an_output_in_the_old_layout(
    way: str, folders: dict[str, Path], by_hand: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    merge_folders(f"{way}\n{TIES}", tmp_path / "out", **pick(folders, "base", "ft1", "ft2"))
    shutil.copytree(folders["base"], tmp_path / "hand")
    checkpoints.store(by_hand, tmp_path / "hand")
    checkpoints.to_old_phi(tmp_path / "hand")
    close(checkpoints.load(tmp_path / "out"), checkpoints.load(tmp_path / "hand"))
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["model_type"] == "phi-msft"
    assert config["n_layer"] == checkpoints.LAYERS


def test_converting_there_and_back_changes_no_byte(folders: dict[str, Path], tmp_path: Path) -> None:
    merge_folders("output(like=base)\n* = ft1", tmp_path / "new", **pick(folders, "base", "ft1"))
    made, wanted = checkpoints.load(tmp_path / "new"), checkpoints.load(folders["new1"])
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in wanted.items())
    merge_folders("output(like=ft1)\n* = new1", tmp_path / "old", **pick(folders, "ft1", "new1"))
    made, wanted = checkpoints.load(tmp_path / "old"), checkpoints.load(folders["ft1"])
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in wanted.items())


def test_places_mean_the_same_in_both_layouts(folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = "layers[*].attn.q = ft1\nlayers[0].mlp = ft2.layers[3].mlp\nnorm = ft1\nhead = ft2.head"
    merge_folders(recipe, tmp_path / "out", **pick(folders, "base", "ft1", "ft2"))
    out, base, one, two = (
        checkpoints.load(p) for p in (tmp_path / "out", *(folders[k] for k in ("base", "new1", "new2")))
    )
    for name, tensor in out.items():
        wanted = base[name]
        if "q_proj" in name or "final_layernorm" in name:
            wanted = one[name]
        elif ".layers.0.mlp." in name:
            wanted = two[name.replace(".layers.0.", ".layers.3.")]
        elif name.startswith("lm_head"):
            wanted = two[name]
        assert torch.equal(tensor, wanted), name


def test_old_names_are_places_too(folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = 'output(like=ft1)\n* = ft1\n"transformer.h.2.mixer.Wqkv.*" = ft2\ntransformer.embd.wte = ft2'
    merge_folders(recipe, tmp_path / "out", **pick(folders, "ft1", "ft2"))
    out, one, two = (checkpoints.load(p) for p in (tmp_path / "out", folders["ft1"], folders["ft2"]))
    for name, tensor in out.items():
        source = two if name.startswith(("transformer.h.2.mixer.Wqkv.", "transformer.embd.wte.")) else one
        assert torch.equal(tensor, source[name]), name
