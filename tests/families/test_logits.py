"""Merged checkpoints load with transformers without complaint, and compute what merged state dicts
compute."""

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
METHODS: dict[str, tuple[str, Callable[..., reference.Array]]] = {
    "linear": ("linear(a, b, weight=[0.7, 0.4])", lambda base, a, b: reference.linear([a, b], [0.7, 0.4])),  # noqa: ARG005
    "slerp": ("slerp(a, b, t=0.3)", lambda base, a, b: reference.slerp(a, b, 0.3)),  # noqa: ARG005
    "ties": (
        "ties(a, b, weight=[0.5, 0.3], density=0.5)",
        lambda base, a, b: (
            reference.elected(base, reference.trimmed([a, b], base, [0.5, 0.5], None), [0.5, 0.3], True, 1).value
        ),
    ),
    "arithmetic": (
        "base + 0.7*(a - base) + 0.2*(b - base)",
        lambda base, a, b: base + 0.7 * (a - base) + 0.2 * (b - base),
    ),
}
UNTIED = {"llama", "mistral", "t5-untied", "phi", "phi3", "gpt_neox", "stablelm", "mixtral"}


def naive(method: str, base: Path, a: Path, b: Path, out: Path) -> None:
    """The merge of the stored tensors, name by name, in a copy of the base's folder."""
    shutil.copytree(base, out)
    stored = [checkpoints.load(folder) for folder in (base, a, b)]
    merged = {}
    for name, tensor in stored[0].items():
        arrays = [model[name].double().numpy() for model in stored]
        merged[name] = torch.tensor(np.asarray(METHODS[method][1](*arrays)), dtype=tensor.dtype)
    checkpoints.store(merged, out)


def same(made: Path, wanted: Path) -> None:
    one, two = checkpoints.logits(made), checkpoints.logits(wanted)
    assert one.clean, one
    assert two.clean
    torch.testing.assert_close(one.logits, two.logits, rtol=1e-4, atol=1e-4)
    assert checkpoints.load(made).keys() == checkpoints.load(wanted).keys()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama-tied", "llama"])
def test_every_method(family: str, method: str, checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    base, a, b = checkpoint(family), finetuned(family, 1), finetuned(family, 2)
    merge_folders(f"* = {METHODS[method][0]}", tmp_path / "out", base=base, a=a, b=b)
    naive(method, base, a, b, tmp_path / "naive")
    same(tmp_path / "out", tmp_path / "naive")


@pytest.mark.parametrize("family", [f for f in checkpoints.MODELS if not f.startswith("llama")])
def test_every_family(family: str, checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    base, a, b = checkpoint(family), finetuned(family, 1), finetuned(family, 2)
    compiled = merge_folders(f"* = {METHODS['ties'][0]}", tmp_path / "out", base=base, a=a, b=b)
    naive("ties", base, a, b, tmp_path / "naive")
    same(tmp_path / "out", tmp_path / "naive")
    assert [d.code for d in compiled.diagnostics] == []
    assert compiled.parameters == checkpoints.parameters(base) == checkpoints.parameters(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    before = json.loads((base / "config.json").read_text("utf-8"))
    assert config.get("tie_word_embeddings", family not in UNTIED) is (family not in UNTIED)
    assert {k: v for k, v in config.items() if "dtype" not in k} == {
        k: v for k, v in before.items() if "dtype" not in k
    }


@pytest.mark.parametrize("family", ["qwen2", "t5", "bert", "gpt2", "mixtral"])
def test_half_precision(family: str, finetuned: Make, tmp_path: Path) -> None:
    folders = {label: finetuned(family, seed) for label, seed in (("a", 1), ("b", 2))}
    merge_folders('output(dtype="bfloat16")\n* = linear(a, b)', tmp_path / "half", **folders)
    merge_folders("* = linear(a, b)", tmp_path / "full", **folders)
    half, full = checkpoints.load(tmp_path / "half"), checkpoints.load(tmp_path / "full")
    assert {t.dtype for t in half.values()} == {torch.bfloat16}
    assert all(torch.equal(half[name], full[name].to(torch.bfloat16)) for name in full)
    assert checkpoints.logits(tmp_path / "half").clean
    config = json.loads((tmp_path / "half" / "config.json").read_text("utf-8"))
    assert config.get("dtype", config.get("torch_dtype")) == "bfloat16"
