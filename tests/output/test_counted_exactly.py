"""Sizes at their edges: padding that is none, weight files that are just full, layers that a config
counts apart."""

from __future__ import annotations

import json
from typing import Any

import mergec
import pytest
from mergec.compiler.plan.plan import Plan

WIDTH = 4


def plan_of(recipe: str, **models: dict[str, Any]) -> Plan:
    lets = "".join(f'let {name} = model("{name}")\n' for name in models)
    return mergec.compile(lets + recipe, catalog=mergec.MemoryCatalog(models), device="cpu").plan


def config_of(plan: Plan) -> dict[str, Any]:
    (text,) = [d.text for d in plan.documents if d.name == "config.json"]
    config: dict[str, Any] = json.loads(text)
    return config


def llama(*tokens: str) -> dict[str, Any]:
    """An embedding with a row for each token."""
    return {
        "tensors": {
            "model.embed_tokens.weight": ("F32", (len(tokens), WIDTH)),
            "model.norm.weight": ("F32", (WIDTH,)),
        },
        "config": {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "num_hidden_layers": 0,
            "vocab_size": len(tokens),
            "tie_word_embeddings": True,
        },
        "documents": {"tokenizer.json": json.dumps({"model": {"vocab": {t: k for k, t in enumerate(tokens)}}})},
    }


# --- padding of the vocabulary -------------------------------------------------------------------


@pytest.mark.parametrize(("pad", "rows"), [(1, 6), (2, 6), (3, 6), (6, 6), (4, 8), (5, 10), (7, 7), (12, 12), (64, 64)])
def test_a_vocabulary_is_padded_to_the_next_multiple_and_no_further(pad: int, rows: int) -> None:
    a, b = llama("x", "y", "z", "u"), llama("x", "y", "v", "w")
    plan = plan_of(f"output(tokenizer=union(a, b), pad_vocab_to={pad})\n* = linear(a, b)", a=a, b=b)
    shapes = {t.name: t.shape for t in plan.tensors}
    assert shapes["model.embed_tokens.weight"] == (rows, WIDTH)
    assert config_of(plan)["vocab_size"] == rows


# --- weight files --------------------------------------------------------------------------------

NUMBERS = 25
EACH = 4 * NUMBERS


@pytest.mark.parametrize(
    ("size", "held"),
    [
        (2 * EACH, [2, 2, 1]),
        (2 * EACH - 1, [1, 1, 1, 1, 1]),
        (3 * EACH - 1, [2, 2, 1]),
        (5 * EACH, [5]),
        (5 * EACH - 1, [4, 1]),
        ('"0.2kB"', [2, 2, 1]),
        ('"1kB"', [5]),
        (1, [1, 1, 1, 1, 1]),
    ],
)
def test_a_weight_file_may_be_just_full(size: int | str, held: list[int]) -> None:
    a = {"tensors": {f"x{k}.weight": ("F32", (NUMBERS,)) for k in range(5)}}
    plan = plan_of(f'output(shard_size={size})\n"*" = 2*a', a=a)
    count = [sum(t.file == k for t in plan.tensors) for k in range(len(plan.outputs))]
    assert count == held
    several = [f"model-{k + 1:05d}-of-{len(held):05d}.safetensors" for k in range(len(held))]
    assert [o.name for o in plan.outputs] == (several if len(held) > 1 else ["model.safetensors"])


def test_what_is_larger_than_a_file_may_be_has_one_of_its_own() -> None:
    sizes = (10, 90, 10, 10)
    a = {"tensors": {f"x{k}.weight": ("F32", (n,)) for k, n in enumerate(sizes)}}
    plan = plan_of('output(shard_size=80)\n"*" = 2*a', a=a)
    assert [t.file for t in sorted(plan.tensors, key=lambda t: t.name)] == [0, 1, 2, 2]


# --- layers that the config counts apart ---------------------------------------------------------


def deep(model_type: str, layers: int, extra: int | None, stored: int) -> dict[str, Any]:
    """A model that stores so many layers; its config counts `layers` and, apart, `extra`."""
    tensors = {"model.embed_tokens.weight": ("F32", (8, WIDTH)), "model.norm.weight": ("F32", (WIDTH,))}
    tensors |= {f"model.layers.{i}.self_attn.o_proj.weight": ("F32", (WIDTH, WIDTH)) for i in range(stored)}
    tensors |= {f"model.layers.{i}.mlp.up_proj.weight": ("F32", (WIDTH, WIDTH)) for i in range(stored)}
    tensors["lm_head.weight"] = ("F32", (8, WIDTH))
    config: dict[str, Any] = {"model_type": model_type, "num_hidden_layers": layers, "vocab_size": 8}
    config["first_k_dense_replace"] = 0
    if extra is not None:
        config["num_nextn_predict_layers"] = extra
    return {"tensors": tensors, "config": config}


@pytest.mark.parametrize("model_type", ["deepseek_v3", "glm4_moe", "nobody_knows"])
@pytest.mark.parametrize(
    ("layers", "extra", "stored"),
    [(4, 1, 5), (4, 2, 6), (4, 1, 4), (4, 0, 4), (4, None, 4)],
    ids=["stored", "two stored", "not stored", "none", "not said"],
)
@pytest.mark.parametrize("kept", [2, 3])
def test_layers_that_predict_further_tokens_are_counted_apart(
    model_type: str, layers: int, extra: int | None, stored: int, kept: int
) -> None:
    """Each key counts those of its kind that are taken: the last one here."""
    model = deep(model_type, layers, extra, stored)
    plan = plan_of(f"* = a\nlayers = stack(a.layers[0..{kept - 1}], a.layers[{stored - 1}])", a=model)
    counted = {"num_hidden_layers": kept, "num_nextn_predict_layers": 1}
    if stored == layers:
        counted = {"num_hidden_layers": kept + 1}
    assert config_of(plan) == model["config"] | counted
