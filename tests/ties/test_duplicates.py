"""Equal bytes under two names that nothing says are tied: one value, stored under both."""

from __future__ import annotations

import json
from pathlib import Path

import lora_adapters
import mergec
import pytest
import torch
from mergec.compiler.checkpoint.layouts import View
from mergec.compiler.checkpoint.ties import read_ties
from mergec.compiler.family.family import build
from merging import compile_folders, merge, merge_folders
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
EMBED, HEAD = "tok_embeddings.weight", "output.weight"
DARE = "* = dare_linear(a, base=base, density=0.5)"


def meta(seed: int, head: bool | None = None) -> Tensors:
    """A model in the naming of Meta's files; `head`: None for the embedding's bytes, else whether
    there is another."""
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
    """No error about a dropped head (E0310): a model that stores the embedding twice, and says it
    is untied."""
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


@pytest.mark.parametrize(
    ("value", "embed", "head"),
    [
        ("{embed: a, _: base}", "a", "base"),
        ('{"output.*": a, _: base}', "base", "a"),
        ('{"output.*": 1, _: 0}*a + {"output.*": 0, _: 1}*base', "base", "a"),
        ('linear(base, a, weight=[{"tok_embeddings.*": 0, _: 1}, {"tok_embeddings.*": 1, _: 0}])', "a", "base"),
        ("slerp(base, a, t=1 - depth)", "a", "base"),
        ("a if depth == 0 else base", "a", "base"),
        ("{layers: base, _: a}", "a", "a"),
        ("a if in_layers() else base", "base", "base"),
    ],
)
def test_what_is_said_of_one_of_them_alone_makes_two_of_them(value: str, embed: str, head: str) -> None:
    models = {"base": meta(1), "a": meta(2)}
    out = merge(f"* = {value}", models)
    torch.testing.assert_close(out[EMBED], models[embed][EMBED])
    torch.testing.assert_close(out[HEAD], models[head][HEAD])


@pytest.mark.parametrize(
    ("modules", "one"), [((), True), ((HEAD,), False), ((EMBED,), False), ((EMBED, HEAD), True)], ids=str
)
@pytest.mark.parametrize("value", ["base + lora({0})", "a + 0.5*lora({0})"])
def test_adapters_that_change_them_equally_or_not(
    modules: tuple[str, ...], one: bool, value: str, tmp_path: Path
) -> None:
    """One random mask for both as long as the adapter does the same to both, or nothing."""
    models = {"base": meta(1), "a": meta(2)}
    names = [n.removesuffix(".weight") for n in ("layers.0.attention.wq.weight", *modules)]
    made: Tensors = {}
    for name in names:
        made |= lora_adapters.factors(models["base"], [name], seed=5)
    config = {"r": 4, "lora_alpha": 2}
    folder = lora_adapters.write(tmp_path / "adapter", made, **config)
    tuned = value.format(f'"{folder}"')
    for method in ("dare_linear(tuned, base=base, density=0.5)", "tuned"):
        out = merge(f"let tuned = {tuned}\n* = {method}", models)
        assert torch.equal(out[HEAD], out[EMBED]) == one
    on, share = ("base", 1.0) if value.startswith("base") else ("a", 0.5)
    wanted = lora_adapters.applied(models[on], made, config | {"lora_alpha": 2 * share})
    for name in (EMBED, HEAD):
        torch.testing.assert_close(out[name].double(), torch.from_numpy(wanted[name]), rtol=1e-5, atol=1e-6)


def test_halves_of_one_stored_tensor_are_not_each_other() -> None:
    """Two views of one tensor are of equal bytes only where they are the same part of it."""
    shapes = {EMBED: (4, 2), "fused.weight": (8, 2), "norm.weight": (2,)}
    tensors = {name: ("F32", shape) for name, shape in shapes.items()}
    catalog = mergec.MemoryCatalog({"a": {"tensors": tensors, "equal": [("fused.weight", "fused.weight")]}})
    checkpoint = catalog.open("a", revision=None, subfolder=None, near="r.mrg")
    family = build({"name": "halves", "vocabulary": {EMBED: 0}})
    views = {EMBED: View(EMBED, 0, (4, 2))}
    views |= {f"half{k}.weight": View("fused.weight", 8 * k, (4, 2)) for k in range(2)}
    assert read_ties(catalog, checkpoint, family, views).duplicates == {}


def test_tensors_without_elements_are_nobody_s_duplicates() -> None:
    empty = {EMBED: torch.zeros(0, 16), HEAD: torch.zeros(0, 16), "norm.weight": torch.zeros(16)}
    tensors = {name: ("F32", tuple(tensor.shape)) for name, tensor in empty.items()}
    spec = {"tensors": tensors, "equal": [(EMBED, HEAD)]}
    made = mergec.compile('let a = model("a")\n"*" = a\n', catalog=mergec.MemoryCatalog({"a": spec}), device="cpu")
    assert made.compilation.recipe.models[0].duplicates == {}
