"""Equal bytes under two names that nothing says are tied: one value, stored under both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from merging import compile_folders, merge, merge_folders
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
EMBED, HEAD = "tok_embeddings.weight", "output.weight"
DARE = "* = dare_linear(a, base=base, density=0.5)"


def meta(seed: int, head: bool | None = None) -> Tensors:
    """A model in the naming of Meta's files; `head`: None for the embedding's bytes, else whether there is another."""
    g = torch.Generator().manual_seed(seed)
    made = {EMBED: torch.randn(64, 16, generator=g), "norm.weight": torch.randn(16, generator=g)}
    made |= {f"layers.{i}.attention.wq.weight": torch.randn(16, 16, generator=g) for i in range(2)}
    if head is not False:
        made[HEAD] = made[EMBED].clone() if head is None else torch.randn(64, 16, generator=g)
    return made


def whisper(seed: int) -> Tensors:
    """Whisper as it was saved before names that share storage were dropped."""
    g = torch.Generator().manual_seed(seed)
    made = {"model.decoder.embed_tokens.weight": torch.randn(48, 16, generator=g)}
    made |= {
        f"model.{side}.layers.{i}.fc1.weight": torch.randn(24, 16, generator=g)
        for side in ("encoder", "decoder")
        for i in range(2)
    }
    return made | {"proj_out.weight": made["model.decoder.embed_tokens.weight"].clone()}


@pytest.mark.parametrize(
    ("make", "head", "embed"),
    [(meta, HEAD, EMBED), (whisper, "proj_out.weight", "model.decoder.embed_tokens.weight")],
)
@pytest.mark.parametrize(
    "method", ["dare_linear(a, base=base, density=0.5)", "della_linear(a, base=base, density=0.5)"]
)
def test_one_random_mask_for_both(make: object, head: str, embed: str, method: str) -> None:
    base, a = make(1), make(2)  # type: ignore[operator]
    out = merge(f"* = {method}", {"base": base, "a": a})
    assert out.keys() == base.keys()
    assert torch.equal(out[head], out[embed])
    assert not torch.equal(out[head], base[head])
    # and it is the mask that the embedding has without a head beside it
    without = {label: {k: v for k, v in t.items() if k != head} for label, t in (("base", base), ("a", a))}
    assert torch.equal(merge(f"* = {method}", without)[embed], out[embed])


def test_computed_once(tmp_path: Path) -> None:
    for label, seed in (("base", 1), ("a", 2)):
        save_file(meta(seed), tmp_path / f"{label}.safetensors")
    compiled = compile_folders(DARE, base=tmp_path / "base.safetensors", a=tmp_path / "a.safetensors")
    nodes = {o.name: o.node for o in compiled.compilation.graph.outputs}
    assert nodes[HEAD] is nodes[EMBED]
    # of `base` the whole, of both the embedding once
    assert compiled.plan.reads <= 2 * 4 * sum(t.numel() for name, t in meta(1).items() if name != HEAD)


def test_an_input_with_a_head_of_its_own_makes_two_of_them() -> None:
    base, a = meta(1), meta(2, head=True)
    out = merge("* = 0.5*base + 0.5*a", {"base": base, "a": a})
    for name in (EMBED, HEAD):
        torch.testing.assert_close(out[name], (base[name] + a[name]) / 2)


def test_a_statement_for_the_head_alone_makes_two_of_them() -> None:
    base, a = meta(1), meta(2)
    out = merge("* = base\nhead = a", {"base": base, "a": a})
    assert torch.equal(out[EMBED], base[EMBED])
    assert torch.equal(out[HEAD], a[HEAD])


def test_equal_bytes_are_not_lost_in_a_tied_output(tmp_path: Path) -> None:
    """No error about a dropped head (E0310): a model that stores the embedding twice, and says it is untied."""
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}
    folders: dict[str, Path] = {}
    for label, tied in (("base", True), ("a", False)):
        g = torch.Generator().manual_seed(len(folders))
        embed = torch.randn(64, 16, generator=g)
        tensors = {"model.embed_tokens.weight": embed, "model.norm.weight": torch.randn(16, generator=g)}
        tensors |= {f"model.layers.{i}.mlp.up_proj.weight": torch.randn(24, 16, generator=g) for i in range(2)}
        if not tied:
            tensors["lm_head.weight"] = embed.clone()
        folders[label] = tmp_path / label
        folders[label].mkdir()
        save_file(tensors, folders[label] / "model.safetensors", {"format": "pt"})
        (folders[label] / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": tied}))
    merge_folders("* = 0.5*base + 0.5*a", tmp_path / "tied", **folders)
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    # with the other one as template both are stored, as its config says
    merge_folders("output(like=a)\n* = dare_linear(a, base=base, density=0.5)", tmp_path / "both", **folders)
    out = load_file(tmp_path / "both" / "model.safetensors")
    assert torch.equal(out["lm_head.weight"], out["model.embed_tokens.weight"])
    assert json.loads((tmp_path / "both" / "config.json").read_text())["tie_word_embeddings"] is False


def test_other_tables_of_the_vocabulary_s_shape() -> None:
    """Old BART files: one embedding under three names."""

    def bart(seed: int) -> Tensors:
        g = torch.Generator().manual_seed(seed)
        shared = torch.randn(48, 16, generator=g)
        names = ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
        made = {f"model.{name}.weight": shared.clone() for name in names}
        made["model.encoder.embed_positions.weight"] = torch.randn(48, 16, generator=g)
        sides = ("encoder", "decoder")
        return made | {
            f"model.{s}.layers.{i}.fc1.weight": torch.randn(24, 16, generator=g) for s in sides for i in range(2)
        }

    out = merge(DARE, {"base": bart(1), "a": bart(2)})
    tables = [out[f"model.{n}.weight"] for n in ("shared", "encoder.embed_tokens", "decoder.embed_tokens")]
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(tables[0], tables[2])
    assert not torch.equal(tables[0], out["model.encoder.embed_positions.weight"])
