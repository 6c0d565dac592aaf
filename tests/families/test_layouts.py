"""Layouts: other exporters' names give the same canonical tensors, and go back to the same
bytes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from mergec.compiler.checkpoint.catalog import CatalogError, Checkpoint, StoredTensor
from mergec.compiler.checkpoint.layouts import CANONICAL, Packed, View, layout_names, pack, recognise, rename_stored
from mergec.compiler.family.family import Family, families, family_for

from .conftest import CASES, Sample, canonical_values, checkpoint_of

Samples = Callable[[str], Sample]
Values = Mapping[str, np.ndarray]


def stored_as(family: Family, layout: str, canonical: Values) -> dict[str, np.ndarray]:
    """What a writer stores for these canonical tensors."""
    packed = pack(family, layout, {name: v.shape for name, v in canonical.items()})
    assert sorted(part for p in packed for part in p.parts) == sorted(canonical)
    return {p.name: np.concatenate([canonical[n].reshape(-1) for n in p.parts]).reshape(p.shape) for p in packed}


def same(first: Values, second: Values) -> bool:
    return first.keys() == second.keys() and all(
        first[n].shape == second[n].shape and np.array_equal(first[n], second[n]) for n in first
    )


def phi_before_its_port(values: Values) -> dict[str, np.ndarray]:
    """Phi-2 as Microsoft stored it, converted by hand."""
    out: dict[str, np.ndarray] = {}
    for name, value in values.items():
        if "self_attn" not in name:
            new = name.replace("model.embed_tokens", "transformer.embd.wte")
            new = re.sub(r"^lm_head\.", "lm_head.linear.", new)
            new = new.replace("model.final_layernorm", "lm_head.ln")
            new = new.replace("model.layers.", "transformer.h.").replace("input_layernorm", "ln")
            out[new] = value
    for i in range(2):
        old, new = f"transformer.h.{i}.mixer", f"model.layers.{i}.self_attn"
        for kind in ("weight", "bias"):
            out[f"{old}.Wqkv.{kind}"] = np.concatenate([values[f"{new}.{p}_proj.{kind}"] for p in "qkv"])
            out[f"{old}.out_proj.{kind}"] = values[f"{new}.dense.{kind}"]
        out[f"{old}.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    return out


def test_phi_in_both_layouts_is_the_same_model(sample: Samples) -> None:
    made = sample("phi")
    old = phi_before_its_port(made.values)
    checkpoint = checkpoint_of(old, {"model_type": "phi-msft", "architectures": ["PhiForCausalLM"], "n_layer": 2})
    seen = recognise(checkpoint, family_for(checkpoint.config, checkpoint.tensors))
    assert seen.layout == "mixformer"
    assert seen.ignored == ("transformer.h.0.mixer.rotary_emb.inv_freq", "transformer.h.1.mixer.rotary_emb.inv_freq")
    assert same(canonical_values(seen, old), made.values)
    assert seen.views["model.layers.1.self_attn.k_proj.weight"] == View(
        "transformer.h.1.mixer.Wqkv.weight", 16 * 16, (16, 16)
    )


def test_phi_is_written_in_the_old_layout_byte_for_byte(sample: Samples) -> None:
    old = {k: v for k, v in phi_before_its_port(sample("phi").values).items() if "inv_freq" not in k}
    assert same(stored_as(families()["phi"], "mixformer", sample("phi").values), old)


def test_mixtral_fused_is_the_same_model(sample: Samples) -> None:
    made = sample("mixtral")
    in_memory = {name: t.detach().numpy() for name, t in made.model.state_dict().items()}
    assert in_memory["model.layers.0.mlp.experts.gate_up_proj"].shape == (3, 48, 16)
    family = families()["mixtral"]
    seen = recognise(checkpoint_of(in_memory), family)
    assert seen.layout == "fused"
    assert same(canonical_values(seen, in_memory), made.values)
    assert same(stored_as(family, "fused", made.values), in_memory)


@pytest.mark.parametrize("case", ["llama", "phi", "gpt2", "gpt_neox"])
def test_a_model_saved_without_its_head_is_the_same_model(case: str, sample: Samples) -> None:
    made = sample(case)
    bare = {n: t.detach().numpy() for n, t in made.model.base_model.state_dict().items()}
    seen = recognise(checkpoint_of(bare), families()[made.family])
    assert seen.layout == "bare"
    assert same(canonical_values(seen, bare), {n: v for n, v in made.values.items() if n in seen.views})
    assert set(made.values) - set(seen.views) <= {"lm_head.weight", "lm_head.bias", "embed_out.weight"}


def test_the_first_gpt2_with_its_buffers(sample: Samples) -> None:
    values = sample("gpt2-bare").values
    buffers = {f"h.{i}.attn.bias": np.ones((1, 1, 32, 32), np.float32) for i in range(2)}
    seen = recognise(checkpoint_of({**values, **buffers}), families()["gpt2"])
    assert seen.ignored == tuple(buffers)
    assert "transformer.h.0.attn.c_attn.bias" in seen.views


@pytest.mark.parametrize(("case", "layout"), [("bert", "gamma_beta"), ("bert-bare", "bare_gamma_beta")])
def test_bert_with_the_first_names_of_its_norms(case: str, layout: str, sample: Samples) -> None:
    made = sample(case)
    rename = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = {re.sub("LayerNorm.(weight|bias)", lambda m: rename[m[0]], n): v for n, v in made.values.items()}
    family = families()["bert"]
    seen = recognise(checkpoint_of(old), family)
    assert seen.layout == layout
    assert same(canonical_values(seen, old), canonical_values(recognise(made.checkpoint, family), made.values))


def test_gemma3_in_its_three_layouts(sample: Samples) -> None:
    values = sample("gemma3-vision").values
    hub = {n.replace("vision_tower.", "vision_tower.vision_model."): v for n, v in values.items()}
    nested = {"model." + n.replace("language_model.model.", "language_model."): v for n, v in values.items()}
    nested["lm_head.weight"] = values["language_model.model.embed_tokens.weight"]
    family = families()["gemma3_vision"]
    assert same(canonical_values(recognise(checkpoint_of(hub), family), hub), values)
    seen = recognise(checkpoint_of(nested), family)
    assert seen.layout == "nested"
    expected = {**values, "language_model.lm_head.weight": nested["lm_head.weight"]}
    assert same(canonical_values(seen, nested), expected)


@pytest.mark.parametrize("case", CASES)
def test_every_layout_goes_there_and_back(case: str, sample: Samples) -> None:
    made = sample(case)
    family = families()[made.family]
    canonical = canonical_values(recognise(made.checkpoint, family), made.values)
    for layout in layout_names(family):
        stored = stored_as(family, layout, canonical)
        seen = recognise(checkpoint_of(stored), family)
        assert seen.layout == layout
        assert same(canonical_values(seen, stored), canonical)
    assert layout_names(family)[0] == CANONICAL


# --- strange files: nothing fails, nothing is lost ------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        {"transformer.h.0.mixer.Wqkv.weight": (4, 4)},  # not three equal parts
        {"transformer.h.0.mixer.Wqkv.weight": ()},
        {"transformer.h.0.mixer.Wqkv.weight": (3, 4), "model.layers.0.self_attn.q_proj.weight": (1, 4)},  # taken
        {"transformer.h.0.mixer.Wqkv.weight": (3, 4), "a\U000f0000b": (1,), "%s.0.%d": (1,)},
        {"transformer.h.0.mixer.Wqkv.weight": (3, 4), ".".join(["1"] * 3000): (1,), "": (1,)},
        {"h" + ".0" * 200: (1,), "{i}.{e}.0.*": (1,), "0": (1,), "..": (1,), "h.007.x": (1,), "h." + "9" * 5000: (1,)},
    ],
)
def test_what_no_rule_fits_passes_through(names: dict[str, tuple[int, ...]]) -> None:
    checkpoint = checkpoint_of({n: np.zeros(s, np.float32) for n, s in names.items()})
    for family in (families()["phi"], family_for(None, checkpoint.tensors)):
        seen = recognise(checkpoint, family)
        assert {view.stored for view in seen.views.values()} == set(names)
        held = sum(int(np.prod(view.shape)) for view in seen.views.values())
        assert held == sum(int(np.prod(shape)) for shape in names.values())


def test_a_fused_tensor_with_a_part_missing_stays_apart() -> None:
    family = families()["phi"]
    at = "model.layers.0.self_attn"
    full = {f"{at}.q_proj.weight": (4, 4), f"{at}.k_proj.weight": (4, 4), f"{at}.v_proj.weight": (4, 4)}
    assert pack(family, "mixformer", full) == (Packed("transformer.h.0.mixer.Wqkv.weight", (12, 4), tuple(full)),)
    for broken in ({**full, f"{at}.v_proj.weight": (2, 4)}, dict(list(full.items())[:2])):
        assert pack(family, "mixformer", broken) == tuple(Packed(n, s, (n,)) for n, s in broken.items())


def test_a_file_that_mixes_layouts_loses_nothing() -> None:
    mixed = {"model.final_layernorm.weight": (4,), "lm_head.ln.weight": (4,), "model.embed_tokens.weight": (8, 4)}
    assert pack(families()["phi"], "mixformer", mixed) == (
        Packed("model.final_layernorm.weight", (4,), ("model.final_layernorm.weight",)),
        Packed("lm_head.ln.weight", (4,), ("lm_head.ln.weight",)),
        Packed("transformer.embd.wte.weight", (8, 4), ("model.embed_tokens.weight",)),
    )


def test_a_header_with_endless_experts_is_not_followed() -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    stored = StoredTensor(name, "F32", (10**12, 2, 0), 0, 0, 0)
    seen = recognise(Checkpoint("memory:endless", (), {name: stored}), families()["mixtral"])
    assert seen.views == {name: View(name, 0, (10**12, 2, 0))}


def test_parts_are_put_in_order_whatever_the_order_given() -> None:
    at = "model.layers.0.block_sparse_moe.experts"
    given = {f"{at}.{e}.{w}.weight": (2, 4) for e in (10, *range(10)) for w in ("w3", "w1")}
    (packed,) = pack(families()["mixtral"], "fused", given)
    assert packed.shape == (11, 4, 4)
    assert packed.parts == tuple(f"{at}.{e}.{w}.weight" for e in range(11) for w in ("w1", "w3"))


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="no layout"):
        pack(families()["llama"], "fused", {})


def test_a_hundred_thousand_tensors_are_quick() -> None:
    family = families()["mixtral"]
    names = {
        f"model.layers.{i}.block_sparse_moe.experts.{e}.{w}.weight": (2, 2)
        for i in range(65)
        for e in range(512)
        for w in ("w1", "w2", "w3")
    }
    start = time.process_time()
    packed = pack(family, "fused", names)
    fused = checkpoint_of({p.name: np.empty(p.shape, np.float32) for p in packed})
    assert recognise(fused, family).views.keys() == names.keys()
    assert time.process_time() - start < 5


# --- rename= --------------------------------------------------------------------------------------


def test_rename_comes_before_recognition(sample: Samples) -> None:
    made = sample("llama")
    odd = {n.replace("model.layers.", "net.block_").replace(".self_attn.", ".sa."): v for n, v in made.values.items()}
    checkpoint = rename_stored(
        checkpoint_of(odd, made.checkpoint.config),
        {"net.block_{i}.sa.*": "model.layers.{i}.self_attn.*", "net.block_{i}.*": "model.layers.{i}.*"},
    )
    assert set(checkpoint.tensors) == set(made.values)
    assert checkpoint.tensors["model.layers.1.self_attn.q_proj.weight"].name == "net.block_1.sa.q_proj.weight"
    assert family_for(checkpoint.config, checkpoint.tensors).name == "llama"


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"c.{i}": "d.{i}"}, "rename: no tensor matches `c.{i}`"),
        ({"a.{i}.{i}": "b"}, "rename: `i` appears twice in `a.{i}.{i}`"),
        ({"a.{i}": "b.{j}"}, "rename: `b.{j}` uses `{j}`, which `a.{i}` does not have"),
        ({"a.{i}": "b.*"}, "rename: `b.*` uses `*`, which `a.{i}` does not have"),
        ({"a.{i}": "b"}, "rename: `a.0` and `a.1` would both be called `b`"),
        ({"a.0": "z\x1b"}, "rename: `a.0` and `z\\x1b` would both be called `z\\x1b`"),
    ],
)
def test_a_rename_that_does_not_work_says_why(rename: dict[str, str], message: str) -> None:
    checkpoint = checkpoint_of({n: np.zeros(1, np.float32) for n in ("a.0", "a.1", "z\x1b")})
    with pytest.raises(CatalogError) as caught:
        rename_stored(checkpoint, rename)
    assert (caught.value.code, caught.value.message, caught.value.file) == ("E0438", message, None)
