"""The checkpoints that other tests stand on are what they claim to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch

LOADABLE = (*checkpoints.MODELS, "t5-untied", "gemma2-copied-head", "gemma2-other-head")
TIED = {
    "llama-tied": "lm_head.weight",
    "qwen2": "lm_head.weight",
    "gemma2": "lm_head.weight",
    "gpt2": "lm_head.weight",
    "t5": "lm_head.weight",
    "bert": "cls.predictions.decoder.weight",
}


@pytest.mark.parametrize("family", LOADABLE)
def test_transformers_loads_it_without_complaint(family: str, checkpoint: Callable[..., Path]) -> None:
    loaded = checkpoints.logits(checkpoint(family))
    assert loaded.clean
    assert loaded.logits.std() > 1e-3


@pytest.mark.parametrize("family", TIED)
def test_tied_heads_are_not_stored(family: str, checkpoint: Callable[..., Path]) -> None:
    assert TIED[family] not in checkpoints.load(checkpoint(family))


@pytest.mark.parametrize("family", ["llama", "t5-untied", "mixtral", "phi"])
def test_untied_heads_are_stored(family: str, checkpoint: Callable[..., Path]) -> None:
    assert "lm_head.weight" in checkpoints.load(checkpoint(family))


def test_a_copied_head_has_the_embedding_s_bytes_and_another_has_not(checkpoint: Callable[..., Path]) -> None:
    copied = checkpoints.load(checkpoint("gemma2-copied-head"))
    other = checkpoints.load(checkpoint("gemma2-other-head"))
    assert torch.equal(copied["lm_head.weight"], copied["model.embed_tokens.weight"])
    assert not torch.equal(other["lm_head.weight"], other["model.embed_tokens.weight"])


def test_the_old_phi_layout_holds_the_same_numbers(checkpoint: Callable[..., Path]) -> None:
    new, old = checkpoint("phi"), checkpoint("phi-old")
    assert checkpoints.parameters(new) == checkpoints.parameters(old)
    q, k, v = checkpoints.load(old)["transformer.h.1.mixer.Wqkv.weight"].chunk(3)
    for part, tensor in {"q": q, "k": k, "v": v}.items():
        assert torch.equal(tensor, checkpoints.load(new)[f"model.layers.1.self_attn.{part}_proj.weight"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtypes(dtype: str, checkpoint: Callable[..., Path]) -> None:
    assert {t.dtype for t in checkpoints.load(checkpoint("llama-tied", dtype=dtype)).values()} == {
        getattr(torch, dtype)
    }


def test_a_finetune_differs_a_little_everywhere(
    checkpoint: Callable[..., Path], finetuned: Callable[..., Path]
) -> None:
    base, tuned = checkpoints.load(checkpoint("llama-tied")), checkpoints.load(finetuned("llama-tied", 1))
    assert base.keys() == tuned.keys()
    assert all(0 < (tuned[name] - base[name]).std() < 0.05 for name in base)
