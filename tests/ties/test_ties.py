"""Tied tensors are one node: read once, computed once, stored once, in every way that checkpoints
store them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import mergec
import pytest
import torch
from merging import compile_folders, merge_folders

Make = Callable[..., Path]
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return config


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def codes(compiled: mergec.Compiled) -> list[str]:
    return [d.code for d in compiled.diagnostics]


# --- tied, no head in the file -------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama-tied", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"])
def test_a_tied_model_without_a_head_in_the_file(
    family: str, checkpoint: Make, finetuned: Make, tmp_path: Path
) -> None:
    base = checkpoint(family)
    recipe = "* = ties(a, b, density=0.5)"
    compiled = merge_folders(recipe, tmp_path / "out", base=base, a=finetuned(family, 1), b=finetuned(family, 2))
    assert HEAD not in checkpoints.load(tmp_path / "out")
    assert compiled.parameters == checkpoints.parameters(base) == checkpoints.parameters(tmp_path / "out")
    assert codes(compiled) == []
    assert checkpoints.logits(tmp_path / "out").clean


def test_a_place_may_be_named_by_the_head_of_a_tied_model(checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    """`a.head` is the embedding where a is tied; the partial merge of the language's first page
    compiles."""
    base, a, b = checkpoint("llama-tied"), finetuned("llama-tied", 1), finetuned("llama-tied", 2)
    recipe = "head = tie(embed); layers[0..3] = ties(a, b, density=0.5)"
    merge_folders(recipe, tmp_path / "one", base=base, a=a, b=b)
    one = checkpoints.load(tmp_path / "one")
    assert torch.equal(one[EMBED], checkpoints.load(base)[EMBED])
    merge_folders("embed = a.head", tmp_path / "two", base=base, a=a)
    assert torch.equal(checkpoints.load(tmp_path / "two")[EMBED], checkpoints.load(a)[EMBED])


def test_the_tied_tensor_is_one_node_that_is_read_once(checkpoint: Make, finetuned: Make) -> None:
    folders = {"base": checkpoint("llama-tied"), "a": finetuned("llama-tied", 1)}
    compiled = compile_folders("* = 0.5*base + 0.5*a", **folders)
    assert [o.name for o in compiled.compilation.graph.outputs].count(HEAD) == 0
    assert compiled.compilation.elaboration.ties == {HEAD: EMBED}
    assert compiled.plan.reads == 2 * 4 * checkpoints.parameters(folders["base"])


def test_untying_gives_the_head_tensors_of_its_own(checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    base, a = checkpoint("llama-tied"), finetuned("llama-tied", 1)
    compiled = merge_folders("* = base\nhead = 0.5*base + 0.5*a", tmp_path / "out", base=base, a=a)
    out = checkpoints.load(tmp_path / "out")
    torch.testing.assert_close(
        out[HEAD], (checkpoints.load(base)[EMBED] + checkpoints.load(a)[EMBED]) / 2, rtol=1e-6, atol=1e-7
    )
    assert compiled.parameters == checkpoints.parameters(base) + out[HEAD].numel()
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False
    assert checkpoints.logits(tmp_path / "out").clean


def test_tying_drops_the_head_of_an_untied_template(checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    base, a = checkpoint("llama"), finetuned("llama", 1)
    compiled = merge_folders("* = linear(base, a)\nhead = tie(embed)", tmp_path / "out", base=base, a=a)
    out = checkpoints.load(tmp_path / "out")
    assert HEAD not in out
    assert compiled.parameters == checkpoints.parameters(base) - out[EMBED].numel()
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is True
    assert checkpoints.logits(tmp_path / "out").clean


def test_an_expectation_about_ties_and_parameters(checkpoint: Make) -> None:
    base = checkpoint("llama-tied")
    count = checkpoints.parameters(base)
    compile_folders(f'* = base\nexpect tied(head, embed), "tied"\nexpect params == {count}, "count"', base=base)
    with pytest.raises(mergec.MergecError, match="E0214"):
        compile_folders(f'* = base\nexpect params == {count + 1}, "count"', base=base)
    with pytest.raises(mergec.MergecError, match="E0214"):
        compile_folders('* = base\nexpect tied(head, embed), "tied"', base=checkpoint("llama"))


# --- redundant heads -----------------------------------------------------------------------------


def test_gemma2_fine_tunes_with_a_redundant_head(checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    """The fine-tunes store a copy of the embedding; the merge has none, and its count is that of
    the base."""
    base = checkpoint("gemma2")
    tunes = {}
    for label, seed in (("a", 1), ("b", 2)):
        tunes[label] = copied(finetuned("gemma2", seed), tmp_path / label)
        checkpoints.store_head(tunes[label], EMBED)
    compiled = merge_folders("* = ties(a, b, density=0.5)", tmp_path / "out", base=base, **tunes)
    out = checkpoints.load(tmp_path / "out")
    assert HEAD not in out
    assert compiled.parameters == checkpoints.parameters(base) == checkpoints.parameters(tmp_path / "out")
    assert f"{compiled.parameters:,}" in (tmp_path / "out" / "README.md").read_text("utf-8")
    assert codes(compiled) == []
    plain = {label: finetuned("gemma2", seed) for label, seed in (("a", 1), ("b", 2))}
    merge_folders("* = ties(a, b, density=0.5)", tmp_path / "plain", base=base, **plain)
    assert all(torch.equal(tensor, out[name]) for name, tensor in checkpoints.load(tmp_path / "plain").items())
    assert checkpoints.logits(tmp_path / "out").clean


def test_copying_a_model_with_a_redundant_head_repairs_it(checkpoint: Make, tmp_path: Path) -> None:
    broken = checkpoint("gemma2-copied-head")
    compiled = merge_folders("* = m", tmp_path / "out", m=broken)
    out, stored = checkpoints.load(tmp_path / "out"), checkpoints.load(broken)
    assert out.keys() == stored.keys() - {HEAD}
    assert all(torch.equal(tensor, stored[name]) for name, tensor in out.items())
    assert compiled.parameters == checkpoints.parameters(broken) - stored[HEAD].numel()
    assert torch.equal(checkpoints.logits(tmp_path / "out").logits, checkpoints.logits(broken).logits)
    assert codes(compiled) == []


def test_equal_bytes_are_one_node(checkpoint: Make) -> None:
    compiled = compile_folders("* = m", m=checkpoint("gemma2-copied-head"))
    (model,) = compiled.compilation.recipe.models
    assert model.aliases == {HEAD: EMBED}
    assert model.parameters == compiled.parameters


def test_different_bytes_under_a_config_that_says_tied_are_two_and_a_warning(checkpoint: Make, tmp_path: Path) -> None:
    odd = checkpoint("gemma2-other-head")
    compiled = merge_folders("* = m", tmp_path / "out", m=odd)
    assert codes(compiled) == ["W0504"]
    out, stored = checkpoints.load(tmp_path / "out"), checkpoints.load(odd)
    assert out.keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in out.items())
    # nothing of that is the recipe's doing: config.json says what it said, and is loaded as the
    # input is
    assert config_of(tmp_path / "out") == config_of(odd)
    assert torch.equal(checkpoints.logits(tmp_path / "out").logits, checkpoints.logits(odd).logits)
    assert compiled.parameters == checkpoints.parameters(odd)


# --- one tied, one not ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(checkpoint: Make, finetuned: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tied base and fine-tune a; b, trained from it with a head of its own."""
    b = copied(finetuned("llama-tied", 2), tmp_path_factory.mktemp("mixed") / "b")
    checkpoints.store_head(b, EMBED, noise=0.1)
    checkpoints.edit_config(b, tie_word_embeddings=False)
    return {"base": checkpoint("llama-tied"), "a": finetuned("llama-tied", 1), "b": b}


def test_a_head_that_would_be_dropped_is_an_error_with_two_ways_out(mixed: dict[str, Path]) -> None:
    with pytest.raises(mergec.MergecError) as caught:
        compile_folders("* = linear(a, b)", **mixed)
    (error,) = caught.value.diagnostics
    assert error.code == "E0310"
    assert "head = tie(embed)" in error.help[0]
    assert "head = linear(a, b)" in error.help[1]


def test_the_first_way_out_accepts_the_tie(mixed: dict[str, Path], tmp_path: Path) -> None:
    compiled = merge_folders("* = linear(a, b)\nhead = tie(embed)", tmp_path / "out", **mixed)
    out = checkpoints.load(tmp_path / "out")
    a, b = checkpoints.load(mixed["a"]), checkpoints.load(mixed["b"])
    assert HEAD not in out
    torch.testing.assert_close(out[EMBED], (a[EMBED] + b[EMBED]) / 2, rtol=1e-5, atol=1e-7)
    assert compiled.parameters == checkpoints.parameters(mixed["base"])
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is True
    assert checkpoints.logits(tmp_path / "out").clean


def test_the_second_way_out_unties(mixed: dict[str, Path], tmp_path: Path) -> None:
    compiled = merge_folders("* = linear(a, b)\nhead = linear(a, b)", tmp_path / "out", **mixed)
    out = checkpoints.load(tmp_path / "out")
    a, b = checkpoints.load(mixed["a"]), checkpoints.load(mixed["b"])
    torch.testing.assert_close(out[EMBED], (a[EMBED] + b[EMBED]) / 2, rtol=1e-5, atol=1e-7)
    # at the head, a tied input contributes its embedding
    torch.testing.assert_close(out[HEAD], (a[EMBED] + b[HEAD]) / 2, rtol=1e-5, atol=1e-7)
    assert compiled.parameters == checkpoints.parameters(mixed["base"]) + out[HEAD].numel()
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False
    assert checkpoints.logits(tmp_path / "out").clean


def test_an_untied_template_unties_without_a_word(mixed: dict[str, Path], tmp_path: Path) -> None:
    merge_folders("output(like=b)\n* = linear(a, b)", tmp_path / "out", a=mixed["a"], b=mixed["b"])
    assert HEAD in checkpoints.load(tmp_path / "out")
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False


def test_a_partial_merge_from_a_model_with_its_own_head_is_no_error(mixed: dict[str, Path], tmp_path: Path) -> None:
    """Only layers come from b, so nobody expects its head."""
    merge_folders("layers = linear(a, b)", tmp_path / "out", **mixed)
    assert HEAD not in checkpoints.load(tmp_path / "out")


def test_a_missing_key_means_the_family_s_default(checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    """Gemma ties unless told otherwise, Llama does not."""
    gemma = copied(checkpoint("gemma2"), tmp_path / "gemma")
    checkpoints.edit_config(gemma, tie_word_embeddings=None)
    merge_folders("* = linear(m, n)", tmp_path / "out", m=gemma, n=finetuned("gemma2", 1))
    assert HEAD not in checkpoints.load(tmp_path / "out")
    assert checkpoints.logits(tmp_path / "out").clean
    llama = copied(checkpoint("llama"), tmp_path / "llama")
    checkpoints.edit_config(llama, tie_word_embeddings=None)
    merge_folders("* = linear(m, n)", tmp_path / "untied", m=llama, n=finetuned("llama", 1))
    assert HEAD in checkpoints.load(tmp_path / "untied")
    assert checkpoints.logits(tmp_path / "untied").clean


def test_only_the_head_is_stored(checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    """Some savers keep the other name of a tied pair."""
    odd = copied(checkpoint("llama-tied"), tmp_path / "odd")
    tensors = checkpoints.load(odd)
    tensors[HEAD] = tensors.pop(EMBED)
    checkpoints.store(tensors, odd)
    merge_folders("* = linear(m, n)", tmp_path / "out", m=odd, n=finetuned("llama-tied", 1))
    out = checkpoints.load(tmp_path / "out")
    assert EMBED in out
    assert HEAD not in out
    assert checkpoints.logits(tmp_path / "out").clean


# --- families that tie more than the head --------------------------------------------------------


@pytest.mark.parametrize("family", ["t5", "t5-untied"])
def test_t5_shares_one_embedding(family: str, checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    base = checkpoint(family)
    redundant = copied(finetuned(family, 1), tmp_path / "redundant")
    tensors = checkpoints.load(redundant)
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] + ["lm_head.weight"] * (family == "t5")
    checkpoints.store(tensors | {name: tensors["shared.weight"].clone() for name in names}, redundant)
    compiled = merge_folders("* = linear(base, a)", tmp_path / "out", base=base, a=redundant)
    assert checkpoints.load(tmp_path / "out").keys() == checkpoints.load(base).keys()
    assert compiled.parameters == checkpoints.parameters(base)
    assert codes(compiled) == []
    assert checkpoints.logits(tmp_path / "out").clean


def test_bert_ties_the_decoder_s_weight_and_bias(checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    base = checkpoint("bert")
    redundant = copied(finetuned("bert", 1), tmp_path / "redundant")
    tensors = checkpoints.load(redundant)
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    checkpoints.store(tensors, redundant)
    compiled = merge_folders("* = linear(base, a)", tmp_path / "out", base=base, a=redundant)
    assert checkpoints.load(tmp_path / "out").keys() == checkpoints.load(base).keys()
    assert compiled.parameters == checkpoints.parameters(base)
    assert codes(compiled) == []
    assert checkpoints.logits(tmp_path / "out").clean


@pytest.mark.parametrize("recipe", ["* = base\nhead = 0.5*base + 0.5*a", "* = base\nhead = a"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen2", "gemma2"])
def test_any_family_can_be_untied(family: str, recipe: str, checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    base = checkpoint(family)
    compiled = merge_folders(recipe, tmp_path / "out", base=base, a=finetuned(family, 1))
    assert compiled.parameters > checkpoints.parameters(base)
    assert config_of(tmp_path / "out")["tie_word_embeddings"] is False
    assert checkpoints.logits(tmp_path / "out").clean


@pytest.mark.parametrize("family", ["llama", "t5-untied"])
def test_a_tie_the_wrong_way_round_is_an_error(family: str, checkpoint: Make) -> None:
    with pytest.raises(mergec.MergecError, match="E0312") as caught:
        compile_folders("* = base\nembed = tie(head)", base=checkpoint(family))
    assert "head = tie(embed)" in caught.value.diagnostics[0].help[0]
