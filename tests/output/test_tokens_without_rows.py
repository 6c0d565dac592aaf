"""Tokens whose id is past a model's rows: each counts as one that the model lacks, and a warning
names them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mergec
import numpy as np
import pytest
from small_tokenizers import (
    EMBED,
    HEAD,
    Tensors,
    bpe,
    llama,
    read,
    special,
    unigram,
    vocabulary_tensors,
    word_level,
    words,
)
from tokenizers import Tokenizer
from transformers import AutoTokenizer

Make = Callable[..., Tokenizer]
ADDED = [special("<PRE>"), special("<MID>"), special("<SUF>")]
N = 9
"""Tokens without the added ones."""


def run(tmp_path: Path, settings: str, statement: str = "* = linear(a, b)") -> tuple[Path, list[Any]]:
    """The output and the warnings of a merge of `a` and `b`."""
    lets = "".join(f'let {n} = model("{tmp_path / n}")\n' for n in ("base", "a", "b") if (tmp_path / n).is_dir())
    compiled = mergec.compile(f"{lets}output({settings})\n{statement}\n", device="cpu")
    compiled.run(tmp_path / "out", force=True)
    return tmp_path / "out", [d for d in compiled.diagnostics if d.code == "W0584"]


def expected(
    ids: dict[str, int], models: dict[str, tuple[dict[str, int], np.ndarray]], size: int, base: str | None
) -> np.ndarray:
    """The mean of `a` and `b` with rows brought to `ids`, spelled out token by token in float64."""
    text = {n: t for t, n in ids.items()}

    def row(label: str, token: str) -> np.ndarray:
        held = {k: rows[own[token]] for k, (own, rows) in models.items() if token in own and own[token] < len(rows)}
        if label in held:
            return held[label].astype(np.float64)
        if base in held:
            return held[base].astype(np.float64)
        if held:
            return np.mean([r.astype(np.float64) for r in held.values()], axis=0)
        return np.zeros(models[label][1].shape[1])

    made = {label: np.zeros((size, models[label][1].shape[1])) for label in ("a", "b")}
    for label, n in itertools.product(made, range(size)):
        if n in text:
            made[label][n] = row(label, text[n])
    return (made["a"] + made["b"]) / 2


@pytest.mark.parametrize("make", [word_level, bpe, unigram])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [(N, N + 3), (N + 3, N), (N, N), (N + 1, N + 2), (N + 5, N)])
@pytest.mark.parametrize("settings", ["tokenizer=a", "tokenizer=union(b, a)", "pad_vocab_to=16"])
def test_rows_by_every_setting(tmp_path: Path, make: Make, tied: bool, rows: tuple[int, int], settings: str) -> None:
    models = {}
    for seed, (label, count) in enumerate(zip("ab", rows, strict=True)):
        tokenizer = make(words(N), ADDED)
        models[label] = tokenizer, llama(tmp_path / label, seed, tokenizer, rows=count, tied=tied)
    out, warnings = run(tmp_path, f'like=a, pad_rows="zero", {settings}')
    ids = AutoTokenizer.from_pretrained(out).get_vocab()
    size = 16 if "pad" in settings else N + 3
    assert max(ids.values()) < size
    for name, found in zip((EMBED, HEAD), vocabulary_tensors(out), strict=True):
        parts = {label: (t.get_vocab(), tensors[name]) for label, (t, tensors) in models.items()}
        np.testing.assert_allclose(found, expected(ids, parts, size, None), rtol=1e-6, atol=1e-7)
    assert read(out, "config.json")["vocab_size"] == size
    short = [label for label, count in zip("ab", rows, strict=True) if count < N + 3]
    assert [w.message.split("`")[1] for w in warnings] == short
    for warning, label in zip(warnings, short, strict=True):
        named = ["<PRE>", "<MID>", "<SUF>"][dict(zip("ab", rows, strict=True))[label] - N :]
        assert [token for token in ("<PRE>", "<MID>", "<SUF>") if token in warning.message] == named


def test_what_base_has_counts_before_a_mean(tmp_path: Path) -> None:
    tokenizer = word_level(words(N), ADDED)
    made = {
        label: (tokenizer.get_vocab(), llama(tmp_path / label, seed, tokenizer, rows=count))
        for seed, (label, count) in enumerate((("base", N + 2), ("a", N), ("b", N + 3)))
    }
    out, warnings = run(tmp_path, "tokenizer=a")
    for name, found in zip((EMBED, HEAD), vocabulary_tensors(out), strict=True):
        parts = {label: (ids, tensors[name]) for label, (ids, tensors) in made.items()}
        wanted = expected(tokenizer.get_vocab(), parts, N + 3, "base")
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
    assert len(warnings) == 2


def test_embedding_and_head_with_rows_of_their_own(tmp_path: Path) -> None:
    """As in Mllama, whose image token has a row in the embedding and none in the head: no row is
    lost."""
    tokenizer = word_level(words(N), ADDED)
    made: dict[str, Tensors] = {
        "a": llama(tmp_path / "a", 0, tokenizer, rows=N + 2, head_rows=N),
        "b": llama(tmp_path / "b", 1, tokenizer, rows=N, head_rows=N + 3),
    }
    out, warnings = run(tmp_path, "like=a, tokenizer=b")
    ids = tokenizer.get_vocab()
    for name, found in zip((EMBED, HEAD), vocabulary_tensors(out), strict=True):
        parts = {label: (ids, tensors[name]) for label, tensors in made.items()}
        np.testing.assert_allclose(found, expected(ids, parts, N + 3, None), rtol=1e-6, atol=1e-7)
    assert [w.labels[0].text for w in warnings] == [f"`{HEAD}` has {N} rows", f"`{EMBED}` has {N} rows"]


def test_rows_that_are_asked_for_by_name(tmp_path: Path) -> None:
    tokenizer = word_level(words(N), ADDED)
    llama(tmp_path / "a", 0, tokenizer, rows=N)
    b = llama(tmp_path / "b", 1, tokenizer)
    rows = '"<PRE>": token(b, force=false), "<MID>": token("zero", force=false), "<SUF>": token(b, "w1")'
    out, warnings = run(tmp_path, f"like=a, tokens={{{rows}}}", "* = a")
    assert not warnings  # who says which row a token has needs no warning
    embed, _ = vocabulary_tensors(out)
    np.testing.assert_array_equal(embed[N:], [b[EMBED][N], 0 * b[EMBED][0], b[EMBED][4]])
    for choice in ("a", 'token(a, "<SUF>")', 'token(a, "<SUF>", force=false)'):
        with pytest.raises(mergec.MergecError) as caught:
            run(tmp_path, f'like=a, tokens={{"<MID>": {choice}}}')
        assert [d.code for d in caught.value.diagnostics] == ["E0313"]
        assert f"it has {N} rows" in caught.value.diagnostics[0].message


def test_help_works_as_it_says(tmp_path: Path) -> None:
    tokenizer = word_level(words(N), [special('<"x">')])
    llama(tmp_path / "a", 0, tokenizer, rows=N)
    b = llama(tmp_path / "b", 1, tokenizer)
    _, (warning,) = run(tmp_path, "like=a, tokenizer=a", "* = a")
    advised = warning.help[0].partition("output(")[2].removesuffix(")`")
    out, warnings = run(tmp_path, f"like=a, tokenizer=a, {advised}", "* = a")
    assert not warnings
    np.testing.assert_array_equal(vocabulary_tensors(out)[0][N], b[EMBED][N])


def test_tokens_that_only_other_files_name(tmp_path: Path) -> None:
    """transformers adds these to tokenizer.json as it loads the tokenizer, so the output has rows
    for them."""
    plain = word_level(words(N))
    entry = {"content": "<x>", "special": True, "rstrip": True}
    of_config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {str(N): entry}}
    llama(tmp_path / "a", 0, plain, rows=N + 2, files={"tokenizer_config.json": {**of_config, "pad_token": "<pad>"}})
    llama(tmp_path / "b", 1, plain, rows=N, files={"added_tokens.json": {"<y>": N}})
    out, warnings = run(tmp_path, "like=a, tokenizer=union(a, b)")
    loaded = AutoTokenizer.from_pretrained(out)
    assert {t: n for t, n in loaded.get_vocab().items() if n >= N} == {"<x>": N, "<pad>": N + 1, "<y>": N + 2}
    assert len(vocabulary_tensors(out)[0]) == N + 3
    assert [w.message for w in warnings] == ["`b` has no row for 1 of its tokens: `<y>`"]
    flags = {t.content: (t.special, t.rstrip, t.normalized) for n, t in loaded.added_tokens_decoder.items() if n >= N}
    assert flags == {"<x>": (True, True, False), "<pad>": (True, False, False), "<y>": (False, False, True)}


def test_without_vocab_the_added_tokens_are_all(tmp_path: Path) -> None:
    entries = [{"id": n, "content": text} for n, text in enumerate("xy")]
    whole = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": entries}
    a = llama(tmp_path / "a", 0, None, rows=1, files={"tokenizer.json": whole})
    b = llama(tmp_path / "b", 1, None, rows=2, files={"tokenizer.json": whole})
    out, _ = run(tmp_path, "tokenizer=a")
    np.testing.assert_allclose(vocabulary_tensors(out)[0], [(a[EMBED][0] + b[EMBED][0]) / 2, b[EMBED][1]], rtol=1e-6)


@pytest.mark.parametrize(
    "files", [{}, {"added_tokens.json": {"<PRE>": N}}], ids=["tokenizer.json", "added_tokens.json"]
)
def test_plain_merges_warn_of_the_tokenizer_that_goes_along(tmp_path: Path, files: dict[str, Any]) -> None:
    tokenizer = word_level(words(N), [] if files else ADDED[:1])
    for seed, label in enumerate("ab"):
        llama(tmp_path / label, seed, tokenizer, rows=N, files=files)
    _, (warning,) = run(tmp_path, "like=a")
    assert warning.message == "the output's tokenizer has 1 token without a row: `<PRE>`"
    assert warning.help == ("`output(tokenizer=a)` gives every token a row",)
    out, _ = run(tmp_path, "like=a, tokenizer=a")
    assert len(vocabulary_tensors(out)[0]) == N + 1


def test_rows_cut_below_the_tokenizer(tmp_path: Path) -> None:
    llama(tmp_path / "a", 0, word_level(words(N), ADDED))
    llama(tmp_path / "b", 1, word_level(words(N)))
    _, (warning,) = run(tmp_path, 'like=a, resize="common"')
    assert "3 tokens without a row" in warning.message


def test_nothing_is_said_where_all_have_rows(tmp_path: Path) -> None:
    for seed, label in enumerate("ab"):
        llama(tmp_path / label, seed, word_level(words(N), ADDED), rows=N + 4)
    for settings in ("like=a", "tokenizer=a", "tokenizer=union(a, b)"):
        assert not run(tmp_path, settings)[1]
