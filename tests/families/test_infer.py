"""Families by config and, failing that, by names alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mergec.compiler.family.family import families, family_for, stack_index

from .conftest import CASES, Sample

Samples = Callable[[str], Sample]

# names alone don't tell these
UNTOLD = {"attn.positions", "norm_cross"}


# --- which entry ----------------------------------------------------------------------------------

LLAMA = ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"]


@pytest.mark.parametrize(
    ("config", "names", "expected"),
    [
        ({"architectures": ["LlamaForCausalLM"], "model_type": "mistral"}, LLAMA, "llama"),
        ({"architectures": ["Unheard"], "model_type": "mistral"}, LLAMA, "mistral"),
        ({"model_type": "qwen2"}, LLAMA, "qwen2"),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, LLAMA, "gemma3"),
        ({"model_type": "unheard", "text_config": {"model_type": "llama"}}, LLAMA, "llama"),
        ({"model_type": "phi"}, ["transformer.h.0.mixer.Wqkv.weight"], "phi"),
    ],
)
def test_the_config_names_the_family(config: dict[str, Any], names: list[str], expected: str) -> None:
    family = family_for(config, names)
    assert (family.name, family.inferred) == (expected, False)


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"model_type": "unheard"},
        {"model_type": ["llama"], "architectures": "LlamaForCausalLM"},
        {"model_type": None, "architectures": [None, 3, {}], "text_config": 5},
        {"model_type": {}, "text_config": {"model_type": []}, "num_hidden_layers": "two", "vision_config": None},
    ],
)
def test_strange_configs_lead_to_inference(config: dict[str, Any] | None) -> None:
    family = family_for(config, LLAMA)
    assert family.inferred
    assert [s.prefix for s in family.stacks] == ["model.layers.{i}"]


def test_a_claim_that_no_tensor_bears_out_does_not_count() -> None:
    names = [f"net.blocks.{i}.attn.wq.weight" for i in range(4)]
    family = family_for({"model_type": "llama", "num_hidden_layers": 4}, names)
    assert family.inferred
    assert [(s.name, s.prefix, s.depth_key) for s in family.stacks] == [
        ("layers", "net.blocks.{i}", "num_hidden_layers")
    ]


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"model_type": "llama"}, ["lm_head.weight", "model.norm.weight"]),
        (
            {"model_type": "idefics3", "text_config": {"model_type": "llama"}},
            [f"model.text_model.layers.{i}.mlp.up_proj.weight" for i in range(2)]
            + ["model.text_model.embed_tokens.weight", "lm_head.weight"],
        ),
        ({"model_type": "llama"}, ["model.layers.weight", "model.layers.first.weight", "lm_head.weight"]),
    ],
)
def test_a_head_alone_bears_no_family_out(config: dict[str, Any], names: list[str]) -> None:
    assert family_for(config, names).inferred


# --- inference against the table ------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in CASES if not c.endswith(("-bare", "-cross", "-norms"))])
def test_inference_agrees_with_the_table(case: str, sample: Samples) -> None:
    made = sample(case)
    known = families()[made.family]
    config = {k: v for k, v in (made.checkpoint.config or {}).items() if k != "architectures"} | {"model_type": "new"}
    if "text_config" in config:
        config["text_config"] = {**config["text_config"], "model_type": "new_text"}
    found = family_for(config, made.checkpoint.tensors)
    assert found.inferred
    assert {(s.name, s.prefix, s.depth_key) for s in found.stacks} == {
        (s.name, s.prefix, s.depth_key) for s in known.stacks
    }
    names = list(made.checkpoint.tensors)
    for stack in known.stacks:
        rests = [at[2] for n in names if (at := stack_index(known, n)) and at[0] == stack]
        expected = {
            role: tuple(p for p in paths if role.startswith("experts.") or any(r.startswith(p + ".") for r in rests))
            for role, paths in known.roles_of(stack.name).items()
        }
        expected = {role: paths for role, paths in expected.items() if paths and role not in UNTOLD}
        roles = found.roles_of(stack.name)
        if made.family == "t5":
            expected = {role: paths for role, paths in expected.items() if not role.startswith("norm")}
        assert {role: roles.get(role) for role in expected} == expected
    assert found.experts == known.experts
    assert found.experts_key == known.experts_key
    assert found.vocab_key == known.vocab_key
    assert found.places["embed"] == known.places["embed"]


def test_two_stacks_are_told_apart() -> None:
    def stacks(*prefixes: str) -> dict[str, str]:
        names = [f"{p}.{i}.attn.wq.weight" for p in prefixes for i in range(3)]
        return {s.name: s.prefix.removesuffix(".{i}") for s in family_for(None, names).stacks}

    assert stacks("model.layers", "visual.blocks") == {"text.layers": "model.layers", "vision.layers": "visual.blocks"}
    assert stacks("model.encoder.layers", "model.decoder.layers") == {
        "encoder.layers": "model.encoder.layers",
        "decoder.layers": "model.decoder.layers",
    }
    assert stacks("text_model.encoder.layers", "vision_model.encoder.layers") == {
        "text.layers": "text_model.encoder.layers",
        "vision.layers": "vision_model.encoder.layers",
    }
    assert stacks("down", "up") == {"down": "down", "up": "up"}


def test_a_prediction_head_is_no_stack() -> None:
    names = [f"model.layers.{i}.attn.q.weight" for i in range(3)] + ["mtp.layers.0.attn.q.weight"]
    assert [s.prefix for s in family_for(None, names).stacks] == ["model.layers.{i}"]


def test_numbered_weights_without_modules_are_no_stack() -> None:
    assert family_for(None, ["net.0.weight", "net.2.weight", "net.4.bias"]).stacks == ()


def test_a_head_that_the_file_lacks_gets_a_place_where_the_config_ties_it() -> None:
    names = ["model.embed_tokens.weight", *LLAMA]
    tied = family_for({"tie_word_embeddings": True}, names)
    assert tied.places["head"] == ("lm_head",)
    assert tied.ties[0].aliases == ("lm_head.weight",)
    assert tied.ties[0].default
    assert "head" not in family_for({"tie_word_embeddings": False}, names).places
    assert "head" not in family_for(None, names).places


def test_names_of_no_model_at_all() -> None:
    for names in ([], [""], ["."], ["0.1.2"], ["a{i}.0.b.c", "a{i}.1.b.c"], ["x" * 10_000]):
        family = family_for(None, names)
        assert family.name == "unknown"
        assert family.stacks == ()
