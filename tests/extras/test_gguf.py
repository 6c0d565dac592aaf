"""Merged folders go through llama.cpp's converter, and what comes out holds the merged model: its
tensors, its tokens under their ids, its depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import transformers
from extras.gguf_models import (
    ALWAYS_TIED,
    SHAPE,
    STACKED,
    TYPES,
    convert,
    expected,
    frankenmerge,
    merge,
    model,
    weights,
)

KINDS = [(type_, tied) for type_ in TYPES for tied in (False, True) if tied or type_ not in ALWAYS_TIED]
IDS = [f"{type_}-{'tied' if tied else 'untied'}" for type_, tied in KINDS]


class Gguf:
    """A file as the gguf library reads it."""

    def __init__(self, path: Path) -> None:
        self._reader = gguf.GGUFReader(path)
        self.tensors = {t.name: np.array(t.data) for t in self._reader.tensors}

    def __getitem__(self, key: str) -> Any:
        return self._reader.fields[key].contents()


def check(folder: Path, type_: str, monkeypatch: pytest.MonkeyPatch) -> Gguf:
    """The file that a folder is converted to, after a look at all that it holds."""
    found = Gguf(convert(folder, type_, monkeypatch))
    merged = weights(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    wanted = expected(merged, type_)
    own = {name: tensor for name, tensor in found.tensors.items() if name != "rope_freqs.weight"}
    assert set(own) == set(wanted)
    assert ("output.weight" in own) == (not config.tie_word_embeddings)
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(own[name], tensor, err_msg=name)
    name = TYPES[type_][3]
    assert found["general.architecture"] == name
    assert found[f"{name}.block_count"] == config.num_hidden_layers
    assert found[f"{name}.embedding_length"] == SHAPE["hidden_size"]
    assert found[f"{name}.attention.head_count"] == SHAPE["num_attention_heads"]
    assert found[f"{name}.attention.head_count_kv"] == SHAPE["num_key_value_heads"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = found["tokenizer.ggml.tokens"]
    assert len(tokens) == len(merged["model.embed_tokens.weight"]) == config.vocab_size
    assert tokens[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    kinds = found["tokenizer.ggml.token_type"]
    assert all(kind == gguf.TokenType.UNUSED for kind in kinds[len(tokenizer) :])
    assert not any(kind == gguf.TokenType.UNUSED for kind in kinds[: len(tokenizer)])
    return found


@pytest.mark.parametrize(("type_", "tied"), KINDS, ids=IDS)
def test_a_mean(type_: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (model(tmp_path / name, type_, seed, tied=tied) for seed, name in enumerate("ab"))
    out = merge(tmp_path, "* = linear(a, b, weight=[0.25, 0.75])")
    found = check(out, type_, monkeypatch)
    ours, theirs = weights(a), weights(b)
    mean = {n: (0.25 * ours[n].astype(float) + 0.75 * theirs[n].astype(float)).astype(np.float32) for n in ours}
    for name, tensor in expected(mean, type_).items():
        np.testing.assert_allclose(found.tensors[name], tensor, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(("type_", "tied"), KINDS, ids=IDS)
def test_a_frankenmerge(type_: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (model(tmp_path / name, type_, seed, tied=tied) for seed, name in enumerate("ab"))
    found = check(frankenmerge(tmp_path, type_), type_, monkeypatch)
    ours, theirs = expected(weights(a), type_), expected(weights(b), type_)
    parts = STACKED[type_]
    stacked = [*((ours, number) for number in parts[0]), *((theirs, number) for number in parts[1])]
    assert found[f"{TYPES[type_][3]}.block_count"] == len(stacked)
    for layer, (origin, number) in enumerate(stacked):
        head = f"blk.{number}."
        for name in (name for name in origin if name.startswith(head)):
            there = found.tensors[f"blk.{layer}.{name.removeprefix(head)}"]
            np.testing.assert_array_equal(there, origin[name], err_msg=f"{name} in layer {layer}")


@pytest.mark.parametrize(("type_", "tied"), KINDS, ids=IDS)
def test_a_union_of_vocabularies(type_: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_union(type_, tmp_path, monkeypatch, tied=tied)


@pytest.mark.parametrize(
    ("type_", "files"), [("llama", "old"), ("gemma2", "old"), ("phi3", "old"), ("llama", "saved"), ("qwen2", "saved")]
)
def test_a_union_of_tokenizers_of_other_files(
    type_: str, files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_union(type_, tmp_path, monkeypatch, files=files)


def test_a_union_that_is_padded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_union("llama", tmp_path, monkeypatch, ", pad_vocab_to=64")


def check_union(
    type_: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str = "",
    *,
    tied: bool | None = None,
    files: str = "published",
) -> None:
    """`files` are those of the first model; the second has tokens of its own."""
    tied = type_ in ALWAYS_TIED if tied is None else tied
    model(tmp_path / "a", type_, 0, tied=tied, added=[] if files == "old" else ["<|own|>"], files=files)
    model(tmp_path / "b", type_, 1, tied=tied, added=["<|im_start|>", "<|im_end|>"])
    out = merge(tmp_path, f"output(like=a, tokenizer=union(a, b){setting})\n* = linear(a, b)")
    found = check(out, type_, monkeypatch)
    tokens = found["tokenizer.ggml.tokens"]
    kinds = found["tokenizer.ggml.token_type"]
    added = [("a", "<|own|>")] * (files != "old") + [("b", "<|im_start|>"), ("b", "<|im_end|>")]
    rows = found.tensors["token_embd.weight"]
    for name, token in added:
        assert kinds[tokens.index(token)] == gguf.TokenType.CONTROL
        own = transformers.AutoTokenizer.from_pretrained(tmp_path / name).convert_tokens_to_ids(token)
        row = weights(tmp_path / name)["model.embed_tokens.weight"][own]
        np.testing.assert_array_equal(rows[tokens.index(token)], row)
