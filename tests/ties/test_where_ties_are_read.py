"""What says that two tensors of an input are one: keys of its config, nested ones too, and the
parts that it has."""

from __future__ import annotations

from typing import Any

import mergec
import pytest
from mergec.compiler.checkpoint.layouts import View
from mergec.compiler.checkpoint.model import Model
from mergec.compiler.checkpoint.ties import Ties, read_ties
from mergec.compiler.family.family import build

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ROWS, WIDTH = 8, 4
Tensors = dict[str, tuple[str, tuple[int, ...]]]


def opened(tensors: Tensors, config: dict[str, Any] | None, equal: list[tuple[str, str]] | None = None) -> Model:
    spec: dict[str, Any] = {"tensors": tensors, "config": config, "equal": equal or []}
    made = mergec.compile('let a = model("a")\n"*" = a\n', catalog=mergec.MemoryCatalog({"a": spec}), device="cpu")
    return made.compilation.recipe.models[0]


def decoder(*more: str) -> Tensors:
    tensors: Tensors = {EMBED: ("F32", (ROWS, WIDTH)), "model.norm.weight": ("F32", (WIDTH,))}
    tensors |= {f"model.layers.{i}.mlp.up_proj.weight": ("F32", (WIDTH, WIDTH)) for i in range(2)}
    return tensors | dict.fromkeys(more, ("F32", (ROWS, WIDTH)))


@pytest.mark.parametrize("model_type", ["llama", "nobody_knows"])
@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": False}, False),
        ({"text_config": {"tie_word_embeddings": True}}, True),
        ({"text_config": {"tie_word_embeddings": False}}, False),
        # what is said at the top counts
        ({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}}, False),
        ({"tie_word_embeddings": True, "text_config": {"tie_word_embeddings": False}}, True),
        # and what is no config says nothing
        ({"tie_word_embeddings": True, "text_config": None}, True),
        ({"tie_word_embeddings": True, "text_config": ["tie_word_embeddings"]}, True),
    ],
)
def test_a_key_at_the_top_or_in_the_text_s_config(model_type: str, config: dict[str, Any], tied: bool) -> None:
    architectures = ["LlamaForCausalLM" if model_type == "llama" else "NobodyForCausalLM"]
    both = opened(decoder(HEAD), {"model_type": model_type, "architectures": architectures, **config}, [(EMBED, HEAD)])
    assert both.aliases == ({HEAD: EMBED} if tied else {})
    assert both.duplicates == ({} if tied else {HEAD: EMBED})


def encoder(*more: str) -> Tensors:
    tensors: Tensors = {"shared.weight": ("F32", (ROWS, WIDTH)), "encoder.final_layer_norm.weight": ("F32", (WIDTH,))}
    tensors |= {f"encoder.block.{i}.layer.0.SelfAttention.q.weight": ("F32", (WIDTH, WIDTH)) for i in range(2)}
    return tensors | dict.fromkeys(more, ("F32", (WIDTH, WIDTH)))


@pytest.mark.parametrize("decodes", [False, True])
def test_a_part_that_is_not_there_has_nothing_tied(decodes: bool) -> None:
    """An encoder on its own has no embedding of a decoder."""
    more = ["decoder.block.0.layer.0.SelfAttention.q.weight", "decoder.final_layer_norm.weight"] if decodes else []
    config = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration" if decodes else "T5EncoderModel"]}
    found = opened(encoder(*more), config).aliases
    assert found["encoder.embed_tokens.weight"] == "shared.weight"
    assert ("decoder.embed_tokens.weight" in found) == decodes


def test_what_no_key_unties_is_always_one() -> None:
    alias = "encoder.embed_tokens.weight"
    tensors = {**encoder(), alias: ("F32", (ROWS, WIDTH))}
    config = {"model_type": "t5", "architectures": ["T5EncoderModel"], "tie_word_embeddings": False}
    found = opened(tensors, config, [("shared.weight", alias)])
    assert (found.aliases, found.duplicates) == ({alias: "shared.weight"}, {})


@pytest.mark.parametrize("tied", [True, False])
def test_a_rule_of_tensors_that_are_not_there_says_nothing(tied: bool) -> None:
    """Neither of itself nor of the rules after it."""
    absent = {"primary": "a.weight", "aliases": ["b.weight"]}
    stored = {"primary": "c.weight", "aliases": ["d.weight"], "config_key": "tie", "default": False}
    family = build({"name": "pairs", "ties": [absent, stored]})
    spec = {"tensors": {"d.weight": ("F32", (ROWS, WIDTH))}, "config": {"tie": tied}}
    catalog = mergec.MemoryCatalog({"m": spec})
    checkpoint = catalog.open("m", revision=None, subfolder=None, near="r.mrg")
    views = {"d.weight": View("d.weight", 0, (ROWS, WIDTH))}
    assert read_ties(catalog, checkpoint, family, views) == Ties({"d.weight": "c.weight"} if tied else {}, {}, (), ())
    # what is stored under the alias is the primary too
    assert views.get("c.weight") == (views["d.weight"] if tied else None)


# --- duplicates ----------------------------------------------------------------------------------

PAIRS: dict[str, Any] = {
    # of the vocabulary's shape, as the config tells, whatever they are called
    "by the config": ({"up.weight": (ROWS, WIDTH), "down.weight": (ROWS, WIDTH)}, {"vocab_size": ROWS}, True),
    "of other rows": ({"up.weight": (5, WIDTH), "down.weight": (5, WIDTH)}, {"vocab_size": ROWS}, False),
    "of a nested key": (
        {"up.weight": (ROWS, WIDTH), "down.weight": (ROWS, WIDTH)},
        {"text_config": {"vocab_size": ROWS}},
        True,
    ),
    "no matrices": ({"up.weight": (ROWS,), "down.weight": (ROWS,)}, {"vocab_size": ROWS}, False),
    "three axes": ({"up.weight": (ROWS, 2, 2), "down.weight": (ROWS, 2, 2)}, {"vocab_size": ROWS}, False),
    "in layers": (
        {"layers.0.up.weight": (ROWS, WIDTH), "layers.1.up.weight": (ROWS, WIDTH)},
        {"vocab_size": ROWS},
        False,
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("dtype", ["F32", "I32"])
def test_what_may_be_a_duplicate(pair: str, dtype: str) -> None:
    shapes, config, duplicates = PAIRS[pair]
    tensors: Tensors = {name: (dtype, shape) for name, shape in shapes.items()}
    first, second = tensors
    found = opened(tensors, config, [(first, second), (second, first)]).duplicates
    assert found == ({second: first} if duplicates and dtype == "F32" else {})


def test_unequal_bytes_are_no_duplicates() -> None:
    tensors: Tensors = dict.fromkeys(("up.weight", "down.weight", "left.weight"), ("F32", (ROWS, WIDTH)))
    found = opened(tensors, {"vocab_size": ROWS}, [("up.weight", "left.weight"), ("left.weight", "up.weight")])
    assert found.duplicates == {"left.weight": "up.weight"}
