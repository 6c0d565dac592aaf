"""`output(tokenizer=…, tokens=…, pad_vocab_to=…)`: which row of which model each token of the
output takes."""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

WIDTH = 3


def checkpoint(folder: Path, vocab: dict[str, int], seed: int, rows: int | None = None) -> np.ndarray:
    """A two-tensor Llama with this vocabulary; returns its embedding."""
    rows = rows or len(vocab)
    folder.mkdir()
    embed = np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32)
    save_file(
        {"model.embed_tokens.weight": embed, "model.norm.weight": np.ones(WIDTH, np.float32)},
        folder / "model.safetensors",
    )
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 0,
        "tie_word_embeddings": True,
        "vocab_size": rows,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return embed


@pytest.fixture
def models(tmp_path: Path) -> dict[str, np.ndarray]:
    return {
        "base": checkpoint(tmp_path / "base", {"x": 0, "y": 1, "z": 2}, 0),
        "a": checkpoint(tmp_path / "a", {"x": 0, "y": 1, "z": 2, "<a>": 3}, 1),
        "b": checkpoint(tmp_path / "b", {"x": 0, "z": 1, "<b>": 2, "<c>": 3}, 2),
    }


def merge(tmp_path: Path, settings: str, statement: str = "* = linear(a, b)") -> tuple[np.ndarray, dict, dict]:
    """The embedding, config.json and tokenizer.json of a merge with these settings."""
    lets = "\n".join(f'let {name} = model("{tmp_path / name}")' for name in ("base", "a", "b"))
    out = tmp_path / "out"
    mergec.compile(f"{lets}\noutput({settings})\n{statement}\n", device="cpu").run(out)
    tokenizer = json.loads((out / "tokenizer.json").read_text())
    tensors = load_file(out / "model.safetensors")
    assert set(tensors) == {"model.embed_tokens.weight", "model.norm.weight"}
    return tensors["model.embed_tokens.weight"], json.loads((out / "config.json").read_text()), tokenizer


def test_vocabulary_of_one_model(tmp_path: Path, models: dict[str, np.ndarray]) -> None:
    a, b, base = models["a"], models["b"], models["base"]
    embed, config, _ = merge(tmp_path, "tokenizer=a")
    # b lacks y, which base has; b lacks <a>, which a alone has
    expected = [(a[0] + b[0]) / 2, (a[1] + base[1]) / 2, (a[2] + b[1]) / 2, a[3]]
    np.testing.assert_allclose(embed, expected, rtol=1e-6)
    assert config["vocab_size"] == 4


def test_union(tmp_path: Path, models: dict[str, np.ndarray]) -> None:
    a, b, base = models["a"], models["b"], models["base"]
    embed, config, tokenizer = merge(tmp_path, "tokenizer=union(base, a, b)")
    expected = [(a[0] + b[0]) / 2, (a[1] + base[1]) / 2, (a[2] + b[1]) / 2, a[3], b[2], b[3]]
    np.testing.assert_allclose(embed, expected, rtol=1e-6)
    assert config["vocab_size"] == 6
    assert [(t["content"], t["id"]) for t in tokenizer["added_tokens"]] == [("<a>", 3), ("<b>", 4), ("<c>", 5)]


def test_a_token_that_several_hold_and_base_lacks_is_their_mean(tmp_path: Path) -> None:
    checkpoint(tmp_path / "base", {"x": 0}, 0)
    a = checkpoint(tmp_path / "a", {"x": 0, "new": 1}, 1)
    b = checkpoint(tmp_path / "b", {"new": 0, "x": 1}, 2)
    lets = "\n".join(f'let {name} = model("{tmp_path / name}")' for name in ("base", "a", "b"))
    out = tmp_path / "out"
    recipe = f"{lets}\noutput(tokenizer=union(base, a, b))\n* = base\n"
    mergec.compile(recipe, device="cpu").run(out)
    embed = load_file(out / "model.safetensors")["model.embed_tokens.weight"]
    np.testing.assert_allclose(embed[1], (a[1] + b[0]) / 2, rtol=1e-6)


def test_single_tokens_and_padding(tmp_path: Path, models: dict[str, np.ndarray]) -> None:
    a, b = models["a"], models["b"]
    settings = 'tokenizer=a, tokens={"<a>": token(b, "<b>"), "y": "zero", "z": b}, pad_vocab_to=8, pad_rows="zero"'
    embed, config, _ = merge(tmp_path, settings)
    zero = np.zeros(WIDTH, np.float32)
    expected = [(a[0] + b[0]) / 2, zero, b[1], b[2], zero, zero, zero, zero]
    np.testing.assert_allclose(embed, expected, rtol=1e-6)
    assert config["vocab_size"] == 8


@pytest.mark.parametrize("compute", ["float32", "float64"])
def test_padding_is_the_mean_of_the_other_rows(tmp_path: Path, models: dict[str, np.ndarray], compute: str) -> None:
    a, b, base = models["a"], models["b"], models["base"]
    settings = f'tokenizer=union(base, a, b), pad_vocab_to=4, compute="{compute}"'
    embed, config, _ = merge(tmp_path, settings, "* = 2*a - 0.5*b")
    # every model's rows under the output's ids: its own, else base's, else the one holder's
    rows_a = np.stack([a[0], a[1], a[2], a[3], b[2], b[3]])
    rows_b = np.stack([b[0], base[1], b[1], a[3], b[2], b[3]])
    np.testing.assert_allclose(embed[:6], 2 * rows_a - 0.5 * rows_b, rtol=1e-5)
    np.testing.assert_allclose(embed[6:], [2 * rows_a.mean(0) - 0.5 * rows_b.mean(0)] * 2, rtol=1e-5)
    assert config["vocab_size"] == 8


def test_ids_without_a_token_are_padding_too(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base", {"x": 1, "y": 3}, 0, rows=5)
    for setting, wanted in (("mean", (base[1] + base[3]) / 2), ("zero", np.zeros(WIDTH))):
        out = tmp_path / setting
        recipe = f'let base = model("{tmp_path / "base"}")\noutput(tokenizer=base, pad_rows="{setting}")\n* = base\n'
        mergec.compile(recipe, device="cpu").run(out)
        embed = load_file(out / "model.safetensors")["model.embed_tokens.weight"]
        np.testing.assert_allclose(embed, [wanted, base[1], wanted, base[3]], rtol=1e-6)


def test_without_a_setting_different_vocabularies_are_an_error(tmp_path: Path, models: dict[str, np.ndarray]) -> None:
    del models
    recipe = f'let a = model("{tmp_path / "a"}")\nlet base = model("{tmp_path / "base"}")\n* = linear(a, base)\n'
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(recipe, device="cpu")
    assert [d.code for d in caught.value.diagnostics] == ["E0311"]
    assert "output(tokenizer=" in caught.value.diagnostics[0].help[0]


def test_token_that_the_model_lacks(tmp_path: Path, models: dict[str, np.ndarray]) -> None:
    del models
    with pytest.raises(mergec.MergecError) as caught:
        merge(tmp_path, 'tokenizer=a, tokens={"<a>": token(b, "nope")}')
    assert [d.code for d in caught.value.diagnostics] == ["E0313"]


def test_no_tokenizer_to_go_by(tmp_path: Path, models: dict[str, np.ndarray]) -> None:
    del models
    (tmp_path / "b" / "tokenizer.json").unlink()
    with pytest.raises(mergec.MergecError) as caught:
        merge(tmp_path, "tokenizer=a")
    assert [d.code for d in caught.value.diagnostics] == ["E0313"]


def test_a_row_for_models_that_lack_the_token_alone(tmp_path: Path, models: dict[str, np.ndarray]) -> None:
    """As mergekit's rows without `force`: who has the token keeps its own."""
    a, b = models["a"], models["b"]
    rows = '{"y": token(b, "<c>", force=false), "<a>": token("zero", force=false), "<b>": token(b, force=false)}'
    embed, _, _ = merge(tmp_path, f"tokenizer=union(base, a, b), tokens={rows}")
    expected = [(a[0] + b[0]) / 2, (a[1] + b[3]) / 2, (a[2] + b[1]) / 2, a[3] / 2, b[2], b[3]]
    np.testing.assert_allclose(embed, expected, rtol=1e-6)


def test_forced_rows_are_every_models(tmp_path: Path, models: dict[str, np.ndarray]) -> None:
    b = models["b"]
    rows = '{"y": token(b, "<c>"), "z": token("zero"), "x": token(b, force=true)}'
    embed, _, _ = merge(tmp_path, f"tokenizer=base, tokens={rows}")
    np.testing.assert_allclose(embed, [b[0], b[3], 0 * b[0]], rtol=1e-6)


def test_two_models_of_one_name(tmp_path: Path) -> None:
    """Models without a `let` are called after their folders, which two may have in common."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    first = checkpoint(tmp_path / "one" / "m", {"x": 0, "y": 1}, 0)
    second = checkpoint(tmp_path / "two" / "m", {"y": 0, "x": 1, "z": 2}, 1)
    one, two = (f'model("{tmp_path / folder / "m"}")' for folder in ("one", "two"))
    out = tmp_path / "out"
    recipe = f"output(tokenizer=union({one}, {two}))\n* = linear({one}, {two})\n"
    mergec.compile(recipe, device="cpu").run(out)
    embed = load_file(out / "model.safetensors")["model.embed_tokens.weight"]
    expected = [(first[0] + second[1]) / 2, (first[1] + second[0]) / 2, second[2]]
    np.testing.assert_allclose(embed, expected, rtol=1e-6)
