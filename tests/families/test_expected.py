"""What configs make transformers expect, against models that transformers itself builds from them;
and that damage is found."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from mergec.compiler.family.expected import Expected, differences, expected_of, section_of

from tools.model_types import expect
from tools.model_types.probes import stored
from tools.small_models import pair

SMALL = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40, "vocab_size": 72}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("LlamaForCausalLM", {**SMALL, "num_hidden_layers": 2}),
    ("LlamaForCausalLM", {**SMALL, "num_hidden_layers": 3, "num_key_value_heads": 1, "mlp_bias": True}),
    ("LlamaForCausalLM", {**SMALL, "num_hidden_layers": 1, "head_dim": 20, "tie_word_embeddings": True}),
    ("Qwen2ForCausalLM", {**SMALL, "num_hidden_layers": 2, "num_key_value_heads": 3}),
    ("Qwen3ForCausalLM", {**SMALL, "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 12}),
    ("Gemma2ForCausalLM", {**SMALL, "num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": 10}),
    ("Gemma3ForCausalLM", {**SMALL, "num_hidden_layers": 4, "num_key_value_heads": 1, "sliding_window_pattern": 2}),
    ("GPT2LMHeadModel", {"n_embd": 24, "n_layer": 2, "n_head": 3, "vocab_size": 72, "n_positions": 33}),
    ("GPT2LMHeadModel", {"n_embd": 24, "n_layer": 3, "n_head": 3, "vocab_size": 72, "n_inner": 50}),
    (
        "Qwen3MoeForCausalLM",
        {**SMALL, "num_hidden_layers": 5, "num_key_value_heads": 1, "num_experts": 3, "moe_intermediate_size": 7}
        | {"mlp_only_layers": [1], "decoder_sparse_step": 2, "num_experts_per_tok": 1},
    ),
    (
        "Qwen2MoeForCausalLM",
        {**SMALL, "num_hidden_layers": 3, "num_key_value_heads": 3, "num_experts": 5, "moe_intermediate_size": 7}
        | {"mlp_only_layers": [2], "shared_expert_intermediate_size": 11, "num_experts_per_tok": 1},
    ),
    (
        "JambaForCausalLM",
        {**SMALL, "num_hidden_layers": 7, "num_key_value_heads": 1, "num_experts": 2, "attn_layer_period": 3}
        | {"head_dim": 8, "attn_layer_offset": 2, "expert_layer_period": 2, "expert_layer_offset": 0}
        | {"num_experts_per_tok": 1},
    ),
    ("Lfm2ForCausalLM", {**SMALL, "num_hidden_layers": 4, "num_key_value_heads": 1, "full_attn_idxs": [1, 3]}),
    (
        "Llama4ForCausalLM",
        {**SMALL, "num_hidden_layers": 5, "num_key_value_heads": 1, "interleave_moe_layer_step": 2}
        | {"num_local_experts": 2, "intermediate_size_mlp": 30, "head_dim": 8},
    ),
    ("BertLMHeadModel", {**SMALL, "num_hidden_layers": 2, "is_decoder": True, "max_position_embeddings": 30}),
    (
        "T5ForConditionalGeneration",
        {"d_model": 24, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 3, "d_ff": 40, "d_kv": 6}
        | {"vocab_size": 72},
    ),
    ("MambaForCausalLM", {"hidden_size": 24, "num_hidden_layers": 2, "vocab_size": 72, "state_size": 5}),
    ("ModernBertForMaskedLM", {**SMALL, "num_hidden_layers": 4, "pad_token_id": 0}),
    ("CohereForCausalLM", {**SMALL, "num_hidden_layers": 2, "use_qk_norm": True}),
]  # fmt: skip


UNKNOWN = ("feed_forward.w", "mixer.x_proj", "mixer.dt_proj", "mamba.x_proj", "mamba.dt_proj", "mamba.dt_layernorm")
"""Tensors with a length that no rule of the form gives: rounded up, or `auto`."""


def tensors_of(architecture: str, given: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what transformers stores of a model."""
    made = getattr(transformers, architecture)
    with torch.device("meta"):
        model = made(made.config_class(**copy.deepcopy(given)))
    return {name: tuple(tensor.shape) for name, tensor in stored(model).items()}


def expected(architecture: str) -> Expected:
    entry = section_of(architecture)
    assert entry is not None
    return expected_of(entry)


@pytest.mark.parametrize(("architecture", "given"), CASES, ids=lambda x: x if isinstance(x, str) else "")
def test_a_lean_config_expects_what_transformers_builds(architecture: str, given: dict[str, Any]) -> None:
    tensors = tensors_of(architecture, given)
    assert list(differences(expected(architecture), given, tensors.items())) == []


@pytest.mark.parametrize(("architecture", "given"), CASES, ids=lambda x: x if isinstance(x, str) else "")
def test_damage_is_found(architecture: str, given: dict[str, Any]) -> None:
    """Each tensor taken away, or longer along each axis whose rule is known."""
    tensors, rules = tensors_of(architecture, given), expected(architecture)
    for name, shape in tensors.items():
        without = {n: s for n, s in tensors.items() if n != name}
        assert any(differences(rules, given, without.items())), name
        for longer in _longer(shape):
            changed = {**tensors, name: longer}
            found = list(differences(rules, given, changed.items()))
            assert found or any(each in name for each in UNKNOWN), (name, longer)


def _longer(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for axis in range(len(shape)):
        yield (*shape[:axis], shape[axis] + 1, *shape[axis + 1 :])


def test_facts_of_an_old_config() -> None:
    """Kinds of layers follow from the keys of configs that have no list of them."""
    from mergec.compiler.family.config_rules import rule

    facts: dict[str, tuple[dict[str, Any], str]] = {
        "Gemma2ForCausalLM": ({}, "layer_types"),
        "Gemma3ForCausalLM": ({"sliding_window_pattern": 3}, "layer_types"),
        "Lfm2ForCausalLM": ({"full_attn_idxs": [0, 4]}, "layer_types"),
        "Llama4ForCausalLM": ({"no_rope_layer_interval": 3}, "layer_types"),
        "Qwen2MoeForCausalLM": ({"use_sliding_window": True, "max_window_layers": 3}, "layer_types"),
    }
    for architecture, (keys, items) in facts.items():
        made = getattr(transformers, architecture).config_class
        said = made(num_hidden_layers=7, **keys).to_dict()[items]
        entry = section_of(architecture)
        assert entry is not None
        text = next(f["rule"] for f in entry["facts"]["model.layers"] if f.get("items") == items)
        lookup = expected_of(entry).lookup(keys)
        assert [rule(text).value(lookup, i=i, n=7) for i in range(7)] == said, architecture


def test_they_are_of_the_installed_transformers() -> None:
    """Else: `python -m tools.model_types.expect`."""
    assert f"from transformers {transformers.__version__}. " in expect.PATH.read_text("utf-8").partition("\n")[0]


@pytest.mark.parametrize("kind", ["gemma2", "smollm3"])
def test_a_section_generated_anew_is_as_in_the_file(kind: str) -> None:
    asked = pair(kind, "CausalLM")
    anew = expect.section(asked.classes[0], kind, expect.look(asked))
    assert expect.sections(expect.PATH.read_text("utf-8"))[asked.classes[0]] == anew
