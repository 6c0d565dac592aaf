"""A key of config.json changes only where the recipe changes what it counts."""

from __future__ import annotations

import json
from typing import Any

import mergec
import pytest

LAYERS = 4


def tensors(layers: int = LAYERS, rows: int = 16) -> dict[str, tuple[str, tuple[int, ...]]]:
    made = {"model.embed_tokens.weight": ("F32", (rows, 4)), "model.norm.weight": ("F32", (4,))}
    parts = ("self_attn.q_proj", "mlp.up_proj")
    return made | {f"model.layers.{i}.{part}.weight": ("F32", (4, 4)) for i in range(layers) for part in parts}


LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": LAYERS,
    "vocab_size": 16,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}


def config_of(recipe: str, config: dict[str, Any], **models: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """config.json that the recipe writes over models `a` and `b` with this config, and the codes of
    the warnings."""
    tokenizer = json.dumps({"model": {"vocab": {str(k): k for k in range(16)}}})
    alike = {"tensors": tensors(), "config": config, "documents": {"tokenizer.json": tokenizer}}
    catalog = mergec.MemoryCatalog({"a": alike, "b": alike, **models})
    lets = "".join(f'let {name} = model("{name}")\n' for name in ("a", "b", *models))
    made = mergec.compile(lets + recipe, catalog=catalog, device="cpu")
    (text,) = [d.text for d in made.plan.documents if d.name == "config.json"]
    return json.loads(text), [d.code for d in made.diagnostics if d.code not in ("W0502", "W0586")]


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"torch_dtype": None},
        {"dtype": "auto"},
        {"layer_types": ["full"] * 7},
        {"layer_types": None, "quantised": {"num_hidden_layers": 9, "vocab_size": 3}},
    ],
)
@pytest.mark.parametrize(
    "recipe", ["* = a", "* = linear(a, b)", "* = a\nlayers = stack(a.layers[0..3])", "embed = a\n* = b"]
)
def test_nothing_that_is_counted_changes(recipe: str, odd: dict[str, Any]) -> None:
    config = LLAMA | odd
    assert config_of(recipe, config)[0] == config


def test_what_changes_is_set_wherever_it_was_said() -> None:
    config = LLAMA | {
        "text_config": {"num_hidden_layers": LAYERS, "vocab_size": 16},
        "vision_config": {"depth": LAYERS},
    }
    made, codes = config_of("output(pad_vocab_to=64)\n* = a\nlayers = stack(a.layers[0..3], b.layers[2..3])", config)
    assert codes == []
    assert made == config | {
        "num_hidden_layers": 6,
        "vocab_size": 64,
        "text_config": {"num_hidden_layers": 6, "vocab_size": 64},
    }


def test_a_listed_family_gets_the_key_that_its_config_leaves_out() -> None:
    config = {k: v for k, v in LLAMA.items() if k not in ("num_hidden_layers", "vocab_size")}
    made, codes = config_of("output(layers=2, pad_vocab_to=64)\n* = a", config)
    assert (made["num_hidden_layers"], made["vocab_size"], codes) == (2, 64, [])


@pytest.mark.parametrize("given", ["", ", config={blocks: 2}"])
def test_a_depth_that_no_key_counts_is_a_warning_unless_keys_are_given(given: str) -> None:
    config = {"model_type": "unheard", "blocks": LAYERS, "tie_word_embeddings": True}
    made, codes = config_of(f"output(layers=2{given})\n* = a", config)
    assert made["blocks"] == (2 if given else LAYERS)
    assert codes == ([] if given else ["W0580"])


def test_the_key_of_another_tower_does_not_count() -> None:
    """Both have four layers; only the text model's key follows the text model."""
    both = tensors() | {f"visual.blocks.{i}.attn.qkv.weight": ("F32", (4, 4)) for i in range(LAYERS)}
    config = {
        "model_type": "unheard_vl",
        "vision_config": {"num_hidden_layers": LAYERS},
        "text_config": {"num_hidden_layers": LAYERS},
    }
    recipe = "output(like=c)\n* = c\ntext.layers = stack(c.text.layers[0..3], c.text.layers[3])"
    made, codes = config_of(recipe, {}, c={"tensors": both, "config": config})
    assert codes == []
    assert made == config | {"text_config": {"num_hidden_layers": 5}}


def test_another_dtype_is_said_wherever_the_old_one_was() -> None:
    config = LLAMA | {"text_config": {"dtype": "float32"}, "audio_config": {"torch_dtype": "float16"}}
    made, _ = config_of('output(dtype="bfloat16")\n* = a', config)
    assert made == config | {"torch_dtype": "bfloat16", "text_config": {"dtype": "bfloat16"}}


def test_nested_lists_of_layers_follow_the_layers() -> None:
    text = {"num_hidden_layers": LAYERS, "layer_types": ["full", "sliding", "chunked", "linear"]}
    config = {"model_type": "unheard", "text_config": text}
    made, codes = config_of("* = a\nlayers = stack(a.layers[2], b.layers[0])", config)
    assert codes == []
    assert made == config | {"text_config": {"num_hidden_layers": 2, "layer_types": ["chunked", "full"]}}
