"""What llama.cpp generates from a merged model is what transformers generates from it: the same
tokens, each the likeliest, from logits that differ by rounding.

llama-cpp-python comes as source alone, and takes six minutes of a core to compile. So it is none of
the extras: `make generation` installs it, and these tests are skipped where it is not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: nothing is generated")

import llama_cpp
import torch
import transformers
from extras.gguf_models import ALWAYS_TIED, TYPES, convert, frankenmerge, merge, model

MEANS = [*((type_, False) for type_ in TYPES if type_ not in ALWAYS_TIED), *((type_, True) for type_ in TYPES)]
NEW = 24
"""Tokens that are generated: more than the windows of Gemma's layers are wide."""


def same_tokens(folder: Path, path: Path) -> None:
    """Both go on from the same text with the same tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ("the quick brown fox", "<|im_end|>", "heads and tokens")
    parts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert len(parts[1]) == 1
    theirs = llama_cpp.Llama(
        str(path), n_ctx=128, n_threads=1, logits_all=True, type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32, verbose=False,
    )  # fmt: skip
    try:
        assert [theirs.tokenize(text.encode(), add_bos=False, special=True) for text in texts] == parts
        prompt = [token for part in parts for token in part]
        tokens = list(prompt)
        theirs.eval(tokens)
        for _ in range(NEW):
            tokens.append(int(np.argmax(theirs.scores[theirs.n_tokens - 1])))
            theirs.eval(tokens[-1:])
        logits = theirs.scores[: theirs.n_tokens].copy()
    finally:
        theirs.close()
    ours = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        wanted = ours(torch.tensor([tokens])).logits[0].numpy()
    assert tokens[len(prompt) :] == wanted[len(prompt) - 1 : -1].argmax(axis=1).tolist()
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("type_", "tied"), [(t, tied) for t in TYPES for tied in (False, True) if tied or t not in ALWAYS_TIED]
)
def test_a_mean_of_models_with_other_tokens(
    type_: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(tmp_path / "a", type_, 0, tied=tied)
    model(tmp_path / "b", type_, 1, tied=tied, added=["<|im_start|>", "<|im_end|>"])
    out = merge(tmp_path, "output(like=a, tokenizer=union(a, b))\n* = linear(a, b, weight=[0.25, 0.75])")
    same_tokens(out, convert(out, type_, monkeypatch))


@pytest.mark.parametrize("type_", TYPES)
def test_a_frankenmerge(type_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, name in enumerate("ab"):
        model(tmp_path / name, type_, seed, tied=type_ in ALWAYS_TIED, added=["<|im_start|>", "<|im_end|>"])
    out = frankenmerge(tmp_path, type_)
    same_tokens(out, convert(out, type_, monkeypatch))
