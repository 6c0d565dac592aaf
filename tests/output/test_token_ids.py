"""Ids of tokens in config.json and generation_config.json: they are those of the tokenizer that the
output has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mergec
import numpy as np
import pytest
from mergec.compiler.emit.token_ids import is_token_key
from small_tokenizers import llama, read, special, word_level, words
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

N = 9
BASE = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
CHAT = {"bos_token_id": 1, "eos_token_id": N + 1, "pad_token_id": N}
ROLES = ("bos_token_id", "eos_token_id", "pad_token_id")


@pytest.fixture(autouse=True)
def models(tmp_path: Path) -> None:
    """`base` and `chat`, which ends its turns with a token of its own."""
    remake(tmp_path, "base")
    remake(tmp_path, "chat")


def remake(tmp_path: Path, label: str, config: Any = None, files: Any = None, added: Any = None) -> None:
    names = {"base": ["<|base|>"], "chat": ["<|pad|>", "<|im_end|>"]}[label] if added is None else added
    folder = tmp_path / label
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            path.unlink()
        folder.rmdir()
    given = {"base": BASE, "chat": CHAT}[label] if config is None else config
    llama(folder, len(label), word_level(words(N), [special(t) for t in names]), config=given, files=files)


def run(tmp_path: Path, settings: str) -> tuple[dict[str, Any], dict[str, Any] | None, list[Any]]:
    """config.json and generation_config.json as transformers reads them, and the warnings about
    ids."""
    lets = "".join(f'let {n} = model("{tmp_path / n}")\n' for n in ("base", "chat"))
    compiled = mergec.compile(f"{lets}output({settings})\n* = linear(base, chat)\n", device="cpu")
    out = tmp_path / "out"
    compiled.run(out, force=True)
    generation = None
    if (out / "generation_config.json").exists():
        generation = GenerationConfig.from_pretrained(out).to_dict()
    return AutoConfig.from_pretrained(out).to_dict(), generation, [d for d in compiled.diagnostics if d.code == "W0585"]


def of(config: dict[str, Any] | None, *keys: str) -> list[Any]:
    assert config is not None
    return [config.get(key) for key in keys or ROLES]


GENERATION = {
    "base": {**BASE, "eos_token_id": [2, N], "temperature": 0.5, "do_sample": True},
    "chat": {**CHAT, "eos_token_id": [N + 1, 2], "temperature": 0.9, "do_sample": True},
}


def test_they_follow_the_tokenizers_model(tmp_path: Path) -> None:
    for label in ("base", "chat"):
        remake(tmp_path, label, files={"generation_config.json": GENERATION[label]})
    config, generation, warnings = run(tmp_path, "tokenizer=chat")
    assert of(config) == [1, N + 1, N]
    assert of(generation) == [1, [N + 1, 2], N]
    assert of(generation, "temperature") == [0.5]  # how to sample is the template's
    assert not warnings


def test_generation_stops_at_them(tmp_path: Path) -> None:
    remake(tmp_path, "base", files={"generation_config.json": {**GENERATION["base"], "do_sample": False}})
    run(tmp_path, "tokenizer=chat")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generation_config.eos_token_id == N + 1
    assert model.generation_config.pad_token_id == N
    assert AutoTokenizer.from_pretrained(tmp_path / "out").convert_ids_to_tokens(N + 1) == "<|im_end|>"


@pytest.mark.parametrize("settings", ["like=base", "tokenizer=base", "pad_vocab_to=16", "tokenizer=union(base, chat)"])
def test_the_templates_own_stay_byte_for_byte(tmp_path: Path, settings: str) -> None:
    odd = json.dumps({**GENERATION["base"], "suppress_tokens": [1, 500]}, indent=7)
    remake(tmp_path, "base", files={"generation_config.json": odd}, added=["<|pad|>", "<|base|>"])
    config, _, warnings = run(tmp_path, f"like=base, {settings}" if "like" not in settings else settings)
    assert (tmp_path / "out" / "generation_config.json").read_text() == odd
    assert of(config) == [1, 2, 0]
    assert not warnings


def test_without_a_generation_config_of_its_own(tmp_path: Path) -> None:
    """The tokenizer's model may have none, or the template: what config.json and tokenizer say
    counts then."""
    remake(tmp_path, "base", files={"generation_config.json": GENERATION["base"]})
    _, generation, _ = run(tmp_path, "tokenizer=chat")
    assert of(generation) == [1, N + 1, N]
    remake(tmp_path, "base")
    remake(tmp_path, "chat", files={"generation_config.json": GENERATION["chat"]})
    _, generation, _ = run(tmp_path, "tokenizer=chat")
    assert of(generation, *ROLES, "temperature") == [1, [N + 1, 2], N, 0.9]
    _, generation, _ = run(tmp_path, "tokenizer=union(base, chat)")
    assert generation is None


@pytest.mark.parametrize("said", [{}, {"eos_token_id": None}])
def test_what_configs_leave_open_the_tokenizer_tells(tmp_path: Path, said: dict[str, Any]) -> None:
    of_tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": {"content": "<|im_end|>"}}
    remake(tmp_path, "base", files={"generation_config.json": GENERATION["base"]})
    remake(tmp_path, "chat", config=said, files={"tokenizer_config.json": of_tokenizer})
    config, generation, _ = run(tmp_path, "tokenizer=chat")
    assert of(config, "eos_token_id") == of(generation, "eos_token_id") == [N + 1]
    assert read(tmp_path / "out", "config.json")["pad_token_id"] == 0  # `<unk>` in both, which only base says is pad


def test_keys_that_the_template_lacks(tmp_path: Path) -> None:
    remake(tmp_path, "base", config={}, files={"generation_config.json": {"temperature": 0.5}})
    _, generation, _ = run(tmp_path, "tokenizer=chat")
    assert read(tmp_path / "out", "config.json")["eos_token_id"] == N + 1
    assert of(generation) == [1, N + 1, N]


MOVED = {
    "eos_token_id": [N + 1, 2],
    "pad_token_id": N,
    "bos_token_id": 1,
    "suppress_tokens": [1, N, N + 1],
    "begin_suppress_tokens": [N],
    "bad_words_ids": [[N, 3], [4]],
    "force_words_ids": [[N + 1]],
    "forced_decoder_ids": [[1, N], [2, None]],
    "sequence_bias": [[[N, 3], -1.5]],
    "forced_eos_token_id": 2,
}


def test_a_union_moves_ids_by_the_tokens_texts(tmp_path: Path) -> None:
    """`chat` is the template, and behind the tokens of `base` its own have other ids."""
    nested = {
        "text_config": {"eos_token_id": N + 1, "vocab_size": N + 2},
        "image_token_id": N,
        "image_token_index": N + 1,
    }
    foreign = {
        "audio_config": {"eos_token_id": N + 1, "vocab_size": 5},
        "codebook_pad_token_id": N,
        "max_token_count": N,
    }
    config = {**CHAT, **nested, **foreign, "lang_to_id": {"<|en|>": N}, "unk_token_id": -1}
    remake(tmp_path, "chat", config=config, files={"generation_config.json": MOVED})
    _, _, warnings = run(tmp_path, "like=chat, tokenizer=union(base, chat)")
    assert not warnings
    ids = AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    pad, end = ids["<|pad|>"], ids["<|im_end|>"]
    assert (pad, end) == (N + 1, N + 2)
    assert read(tmp_path / "out", "generation_config.json") == {
        "eos_token_id": [end, 2],
        "pad_token_id": pad,
        "bos_token_id": 1,
        "suppress_tokens": [1, pad, end],
        "begin_suppress_tokens": [pad],
        "bad_words_ids": [[pad, 3], [4]],
        "force_words_ids": [[end]],
        "forced_decoder_ids": [[1, pad], [2, None]],
        "sequence_bias": [[[pad, 3], -1.5]],
        "forced_eos_token_id": 2,
    }
    found = read(tmp_path / "out", "config.json")
    assert of(found) == [1, end, pad]
    assert (found["text_config"]["eos_token_id"], found["image_token_id"], found["image_token_index"]) == (
        end,
        pad,
        end,
    )
    assert found["lang_to_id"] == {"<|en|>": pad}
    assert found["unk_token_id"] == -1
    assert {key: found[key] for key in foreign} == foreign


def test_nested_configs_follow_too(tmp_path: Path) -> None:
    remake(tmp_path, "base", config={**BASE, "text_config": {"eos_token_id": 2, "bos_token_id": 1}})
    run(tmp_path, "tokenizer=chat")
    assert read(tmp_path / "out", "config.json")["text_config"] == {"eos_token_id": N + 1, "bos_token_id": 1}


def test_a_token_that_the_output_lacks_is_told(tmp_path: Path) -> None:
    config = {**BASE, "mask_token_id": N}
    remake(tmp_path, "base", config=config, files={"generation_config.json": {"suppress_tokens": [1, N]}})
    _, generation, (first, second) = run(tmp_path, "tokenizer=chat")
    assert (
        first.message
        == f"`mask_token_id` in config.json of `base` is {N}, the token `<|base|>`, which the output lacks"
    )
    assert "`suppress_tokens` in generation_config.json" in second.message
    assert read(tmp_path / "out", "config.json")["mask_token_id"] is None
    assert of(generation, "suppress_tokens") == [[1]]
    # both ways out of the help
    config, generation, warnings = run(tmp_path, "tokenizer=union(chat, base)")
    assert (config["mask_token_id"], of(generation, "suppress_tokens"), warnings) == (N + 2, [[1, N + 2]], [])
    config, _, (left,) = run(tmp_path, "tokenizer=chat, config={mask_token_id: 3}")
    assert config["mask_token_id"] == 3
    assert "generation_config" in left.message


def test_phrases_of_which_a_token_is_lost_are_left_out(tmp_path: Path) -> None:
    phrases = {"bad_words_ids": [[3, N], [4, 5]], "sequence_bias": [[[N], 1.0], [[3], 2.0]]}
    remake(tmp_path, "base", files={"generation_config.json": phrases})
    run(tmp_path, "tokenizer=chat")
    found = read(tmp_path / "out", "generation_config.json")
    assert (found["bad_words_ids"], found["sequence_bias"]) == ([[4, 5]], [[[3], 2.0]])


def test_an_id_of_no_token_is_told(tmp_path: Path) -> None:
    remake(tmp_path, "chat", config={**CHAT, "sep_token_id": N + 2})
    config, _, (warning,) = run(tmp_path, "like=chat, tokenizer=union(base, chat)")
    assert warning.message == f"`sep_token_id` in config.json of `chat` is {N + 2}, which is no token of `chat`"
    assert config["sep_token_id"] == N + 2


@pytest.mark.parametrize("settings", ["tokenizer=chat", "like=chat, pad_vocab_to=1", "tokenizer=union(chat, base)"])
def test_an_id_past_the_rows_is_told(tmp_path: Path, settings: str) -> None:
    """Rows behind the last token are dropped, and with `pad_token_id` past them a model doesn't
    load."""
    remake(tmp_path, "chat", config={**CHAT, "pad_token_id": 20})
    remake(tmp_path, "base", config={**BASE, "pad_token_id": 20})
    _, _, (warning,) = run(tmp_path, settings)
    size = N + 3 if "union" in settings else N + 2
    assert warning.message == f"`pad_token_id` in config.json is 20, and the output has {size} rows"
    _, _, warnings = run(tmp_path, f"{settings}, config={{pad_token_id: 0}}")
    assert not warnings
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("key", ["eos_token_id", "forced_decoder_ids", "sequence_bias", "lang_to_id", "bad_words_ids"])
def test_odd_values_do_no_harm(tmp_path: Path, key: str) -> None:
    odd: list[Any] = [True, "x", 1.5, [], [[]], {}, {"a": [1]}, [None], [1, "x"], 10**30, -1, [[1, [2]]]]
    lets = "".join(f'let {n} = model("{tmp_path / n}")\n' for n in ("base", "chat"))
    for value in odd:
        files = {"generation_config.json": {key: value}}
        remake(tmp_path, "chat", config={key: value, "text_config": {key: value}}, files=files)
        for settings in ("tokenizer=chat", "like=chat, tokenizer=base", "like=chat, tokenizer=union(base, chat)"):
            compiled = mergec.compile(f"{lets}output({settings})\n* = linear(base, chat)\n", device="cpu")
            assert json.loads(compiled.plan.documents[0].text)


def test_which_keys_hold_ids() -> None:
    ids = "eos_token_id pad_token_ids image_token_index decoder_start_token_id stop_token_ids begin_suppress_tokens"
    others = "vocab_size max_new_tokens pad_token_type_id num_image_tokens hidden_size t2u_pad_token_id eos_token"
    assert all(is_token_key(key) for key in ids.split())
    assert not any(is_token_key(key) for key in others.split())


def test_values_are_those_of_the_rows(tmp_path: Path) -> None:
    """What config.json names as eos is, row for row, the merged eos of the model that says so."""
    run(tmp_path, "like=chat, tokenizer=union(base, chat)")
    out, chat = (np.asarray(rows) for rows in (embedding(tmp_path / "out"), embedding(tmp_path / "chat")))
    np.testing.assert_array_equal(out[read(tmp_path / "out", "config.json")["eos_token_id"]], chat[N + 1])


def embedding(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight.detach().numpy()
