"""Rows that tied tensors take from a model whose two tensors are unlike: each name gets its own, or
an error tells."""

from __future__ import annotations

import json
from pathlib import Path

import mergec
import numpy as np
import pytest
from mergec.grammar.diagnostic import MergecError
from safetensors.numpy import load_file, save_file
from small_tokenizers import EMBED, HEAD, WIDTH, Tensors, llama, vocabulary_tensors, word_level, words

N = 9
META = {EMBED: "tok_embeddings.weight", HEAD: "output.weight"}
SETTINGS = [
    "tokenizer=union(base, a, other)",
    "tokenizer=other",
    'tokens={"new": other}',
    'tokens={"w1": token(other, "new", force=true)}',
]


def run(tmp_path: Path, settings: str, statements: str) -> Path:
    lets = "".join(f'let {n} = model("{tmp_path / n}")\n' for n in ("base", "a", "other"))
    text = f"{lets}output({settings})\n{statements}\n"
    mergec.compile(text, device="cpu").run(tmp_path / "out", force=True)
    return tmp_path / "out"


def meta(folder: Path, seed: int, vocabulary: list[str], *, alike: bool) -> Tensors:
    """A model in a family that is not listed, whose two tensors may hold equal bytes."""
    rng = np.random.default_rng(seed)
    shapes = {EMBED: (len(vocabulary), WIDTH), HEAD: (len(vocabulary), WIDTH)}
    made = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if alike:
        made[HEAD] = made[EMBED]
    layers = {f"layers.{i}.attention.wq.weight": rng.standard_normal((WIDTH, WIDTH)).astype("f4") for i in range(2)}
    folder.mkdir()
    save_file({**{META[name]: tensor for name, tensor in made.items()}, **layers}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(word_level(vocabulary).to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps({}))
    return made


@pytest.mark.parametrize("settings", SETTINGS)
def test_equal_bytes_in_what_is_merged_alone_are_no_tie(tmp_path: Path, settings: str) -> None:
    for seed, label in enumerate(("base", "a")):
        meta(tmp_path / label, seed, words(N), alike=True)
    other = meta(tmp_path / "other", 2, [*words(N), "new"], alike=False)
    out = load_file(run(tmp_path, settings, "* = linear(base, a)") / "model.safetensors")
    row = words(N).index("w1") if "force" in settings else N
    for name in (EMBED, HEAD):
        np.testing.assert_array_equal(out[META[name]][row], other[name][N])


@pytest.fixture
def tied(tmp_path: Path) -> Tensors:
    """Tied `base` and `a`, and `other`, which is not and has a token of its own: its tensors."""
    for seed, label in enumerate(("base", "a")):
        llama(tmp_path / label, seed, word_level(words(N)), tied=True)
    return llama(tmp_path / "other", 2, word_level([*words(N), "new"]))


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_tie_does_not_drop_a_row(tmp_path: Path, tied: Tensors, settings: str) -> None:
    with pytest.raises(MergecError) as caught:
        run(tmp_path, settings, "* = linear(base, a)")
    (found,) = caught.value.diagnostics
    assert found.code == "E0310"
    assert found.message == "`other` has its own `head`, but the output ties it to `embed`"
    # both ways out, as they are printed
    (accept, untie) = (help.split("`")[1] for help in found.help)
    row = words(N).index("w1") if "force" in settings else N
    out = run(tmp_path, settings, f"* = linear(base, a)\n{untie}")
    embed, head = vocabulary_tensors(out)
    np.testing.assert_array_equal(embed[row], tied[EMBED][N])
    np.testing.assert_array_equal(head[row], tied[HEAD][N])
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    embed, head = vocabulary_tensors(run(tmp_path, settings, f"* = linear(base, a)\n{accept}"))
    np.testing.assert_array_equal(embed[row], tied[EMBED][N])
    np.testing.assert_array_equal(head, embed)


@pytest.mark.usefixtures("tied")
def test_a_model_that_gives_no_row_loses_nothing(tmp_path: Path) -> None:
    embed, head = vocabulary_tensors(run(tmp_path, "tokenizer=base, pad_vocab_to=16", "* = linear(base, a)"))
    assert len(embed) == 16
    np.testing.assert_array_equal(head, embed)
