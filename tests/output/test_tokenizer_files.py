"""The tokenizer's files of the output: all of one model, and with what tokens of the others keep
their flags."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import mergec
import numpy as np
import pytest
from small_tokenizers import (
    EMBED,
    bpe,
    llama,
    read,
    special,
    unigram,
    vocabulary_tensors,
    word_level,
    words,
)
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

N = 9
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def run(tmp_path: Path, settings: str, statement: str = "* = linear(base, chat)") -> Path:
    lets = "".join(f'let {n} = model("{tmp_path / n}")\n' for n in ("base", "chat", "more") if (tmp_path / n).is_dir())
    mergec.compile(f"{lets}output({settings})\n{statement}\n", device="cpu").run(tmp_path / "out", force=True)
    return tmp_path / "out"


def flags_of(token: Any) -> dict[str, bool]:
    return {flag: getattr(token, flag) for flag in FLAGS}


def with_all_flags() -> list[AddedToken]:
    return [
        AddedToken(f"<{k}>", **dict(zip(FLAGS, chosen, strict=True)))
        for k, chosen in enumerate(itertools.product([False, True], repeat=len(FLAGS)))
    ]


@pytest.mark.parametrize("make", [word_level, bpe, unigram])
def test_added_tokens_keep_all_flags(tmp_path: Path, make: Any) -> None:
    llama(tmp_path / "base", 0, make(words(N)))
    llama(tmp_path / "chat", 1, make(words(N), with_all_flags()))
    out = run(tmp_path, "tokenizer=union(base, chat)")
    assert Tokenizer.from_file(str(out / "tokenizer.json")).get_vocab() == make(words(N), with_all_flags()).get_vocab()
    loaded = AutoTokenizer.from_pretrained(out).added_tokens_decoder
    found = {t.content: flags_of(t) for t in loaded.values()}
    assert {t.content: found.get(t.content) for t in with_all_flags()} == {
        t.content: flags_of(t) for t in with_all_flags()
    }


def test_special_tokens_are_left_out_of_decoded_text(tmp_path: Path) -> None:
    llama(tmp_path / "base", 0, word_level(words(N), [special("<|pad|>")]))
    llama(tmp_path / "chat", 1, word_level(words(N), [special("<|im_start|>", rstrip=True), special("<|im_end|>")]))
    out = run(tmp_path, "tokenizer=union(base, chat)")
    loaded = AutoTokenizer.from_pretrained(out)
    ids = loaded("w1 <|im_end|> w2")["input_ids"]
    assert ids == [4, N + 2, 5]
    assert loaded.decode(ids, skip_special_tokens=True).split() == ["w1", "w2"]


def test_flags_of_single_tokens(tmp_path: Path) -> None:
    """A token's own flags, else those of the token whose row it gets, else those of whoever has
    it."""
    llama(tmp_path / "base", 0, word_level(words(N)))
    llama(tmp_path / "chat", 1, word_level(words(N), [special("<a>", lstrip=True), special("<b>")]))
    llama(tmp_path / "more", 2, word_level(words(N), [AddedToken("<c>", single_word=True)]))
    rows = '"<a>": chat, "<new>": token(chat, "<b>"), "<c>": "zero", "<d>": "zero", "<e>": token(base, "w1")'
    out = run(tmp_path, f"tokens={{{rows}}}", "* = linear(base, chat, more)")
    entries = {e["content"]: e for e in read(out, "tokenizer.json")["added_tokens"]}
    assert [entries[t]["id"] for t in ("<a>", "<new>", "<c>", "<d>", "<e>")] == [N, N + 1, N + 2, N + 3, N + 4]
    marked = {token: [flag for flag in FLAGS if entry[flag]] for token, entry in entries.items()}
    wanted = {"<a>": ["lstrip", "special"], "<new>": ["special"], "<c>": ["single_word", "normalized"]}
    assert marked == {**wanted, "<d>": [], "<e>": []}


@pytest.mark.parametrize("make", [word_level, bpe])
def test_ids_after_gaps_are_those_of_the_rows(tmp_path: Path, make: Any) -> None:
    """Loaders number added tokens themselves, so that a gap in the ids would move them onto others'
    rows."""
    gapped = make(words(N)).to_str().replace('"w5": 8', '"w5": 20').replace('"w5":8', '"w5":20')
    base = llama(tmp_path / "base", 0, None, rows=21, files={"tokenizer.json": gapped})
    chat = llama(tmp_path / "chat", 1, make(words(N), [special("<a>"), special("<b>")]))
    out = run(tmp_path, 'tokenizer=union(base, chat), pad_rows="zero"')
    loaded = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert loaded.token_to_id("w5") == 20
    assert [loaded.token_to_id(t) for t in ("<a>", "<b>")] == [21, 22]
    assert loaded.encode("w1 <b> w5").ids[1] == 22 or make is bpe
    embed, _ = vocabulary_tensors(out)
    np.testing.assert_allclose(embed[20], (base[EMBED][20] + chat[EMBED][8]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(embed[21:], chat[EMBED][N:])


def test_gaps_that_no_loader_would_keep(tmp_path: Path) -> None:
    whole = unigram(words(N), [special("<gap>")]).to_str()
    gapped = whole.replace(f'"id":{N},', '"id":20,').replace(f'"id": {N},', '"id": 20,')
    llama(tmp_path / "base", 0, None, rows=21, files={"tokenizer.json": gapped})
    llama(tmp_path / "chat", 1, unigram(words(N), [special("<a>")]))
    with pytest.raises(mergec.MergecError) as caught:
        run(tmp_path, "tokenizer=union(base, chat)")
    assert [d.code for d in caught.value.diagnostics] == ["E0319"]
    assert read(run(tmp_path, "tokenizer=base"), "tokenizer.json")["added_tokens"][0]["id"] == 20


def test_every_file_that_lists_added_tokens_has_them(tmp_path: Path) -> None:
    decoder = {"0": {"content": "<unk>", "special": True}}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": decoder}
    files = {"tokenizer_config.json": config, "added_tokens.json": {"<old>": N}}
    llama(tmp_path / "base", 0, word_level(words(N), [special("<old>")]), files=files)
    llama(tmp_path / "chat", 1, word_level(words(N), [special("<a>", rstrip=True)]))
    out = run(tmp_path, "tokenizer=union(base, chat)")
    assert read(out, "added_tokens.json") == {"<old>": N, "<a>": N + 1}
    entry = {"content": "<a>", **dict.fromkeys(FLAGS, False), "rstrip": True, "special": True}
    assert read(out, "tokenizer_config.json")["added_tokens_decoder"] == {**decoder, str(N + 1): entry}
    loaded = AutoTokenizer.from_pretrained(out)
    assert loaded.convert_tokens_to_ids(["<old>", "<a>"]) == [N, N + 1]
    assert loaded.added_tokens_decoder[N + 1].rstrip


def test_beside_a_sentencepiece_model_the_configuration_lists_what_is_added(tmp_path: Path) -> None:
    """Who reads `tokenizer.model`, as llama.cpp's converter does, reads added tokens there and not
    in tokenizer.json."""
    llama(tmp_path / "base", 0, word_level(words(N)), files={"tokenizer.model": "pieces"})
    llama(tmp_path / "chat", 1, word_level(words(N), [special("<a>", rstrip=True)]))
    out = run(tmp_path, "tokenizer=union(base, chat)")
    entry = {"content": "<a>", **dict.fromkeys(FLAGS, False), "rstrip": True, "special": True}
    assert read(out, "tokenizer_config.json")["added_tokens_decoder"] == {str(N): entry}
    assert AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("<a>") == N


@pytest.mark.parametrize("key", ["extra_special_tokens", "additional_special_tokens"])
def test_special_tokens_that_are_added_are_listed_with_those_of_no_role(tmp_path: Path, key: str) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", key: ["<own>"]}
    llama(tmp_path / "base", 0, word_level(words(N), [special("<own>")]), files={"tokenizer_config.json": config})
    llama(tmp_path / "chat", 1, word_level(words(N), [special("<a>"), AddedToken("<b>")]))
    out = run(tmp_path, "tokenizer=union(base, chat)")
    assert read(out, "tokenizer_config.json")[key] == ["<own>", "<a>"]
    assert set(AutoTokenizer.from_pretrained(out).all_special_tokens) >= {"<own>", "<a>"}


def test_a_tokenizer_without_tokenizer_json(tmp_path: Path) -> None:
    """A vocabulary and merges alone: what is added is in added_tokens.json, and its flags in
    tokenizer_config.json."""
    vocab = {t: n for n, t in enumerate(["<|endoftext|>", "a", "b", "ab"])}
    files = {"vocab.json": vocab, "merges.txt": "#version: 0.2\na b\n", "added_tokens.json": {"<old>": 4}}
    config = {"tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>"}
    llama(tmp_path / "base", 0, None, rows=5, files={**files, "tokenizer_config.json": config})
    llama(tmp_path / "chat", 1, bpe(["<unk>", "a"], [special("<x>", rstrip=True)]))
    out = run(tmp_path, "tokenizer=union(base, chat)")
    assert read(out, "added_tokens.json") == {"<old>": 4, "<unk>": 5, "<x>": 6}
    loaded = AutoTokenizer.from_pretrained(out)
    assert loaded.get_vocab() == {**vocab, "<old>": 4, "<unk>": 5, "<x>": 6}
    assert flags_of(loaded.added_tokens_decoder[6]) == {**dict.fromkeys(FLAGS, False), "special": True, "rstrip": True}
    assert len(vocabulary_tensors(out)[0]) == 7


def test_all_files_are_of_the_tokenizers_model(tmp_path: Path) -> None:
    of_base = {
        "special_tokens_map.json": {"eos_token": "</s>"},
        "added_tokens.json": {},
        "merges.txt": "of base",
        "vocab.txt": "of base",
        "source.spm": "of base",
        "tokenization_own.py": "# of base",
        "tokenizer.model.v3": "of base",
        "normalizer.json": {},
        "preprocessor_config.json": {"size": 3},
        "modeling_own.py": "# of base",
    }
    llama(tmp_path / "base", 0, word_level(words(N)), files=of_base)
    of_chat = {"special_tokens_map.json": {"eos_token": "<|im_end|>"}, "preprocessor_config.json": {"size": 4}}
    llama(tmp_path / "chat", 1, word_level(words(N), [special("<|im_end|>")]), files=of_chat)
    out = run(tmp_path, "tokenizer=chat")
    written = {p.name for p in out.iterdir()}
    assert not written & set(of_base) - {"special_tokens_map.json", "preprocessor_config.json", "modeling_own.py"}
    assert written >= {"preprocessor_config.json", "modeling_own.py", "tokenizer.json", "tokenizer_config.json"}
    assert read(out, "preprocessor_config.json") == {"size": 3}
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (out / name).read_bytes() == (tmp_path / "chat" / name).read_bytes()
    assert AutoTokenizer.from_pretrained(out).eos_token == "<|im_end|>"
