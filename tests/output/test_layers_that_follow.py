"""What config.json says of the layers of each stack follows where they come from."""

from __future__ import annotations

import json
from typing import Any

import mergec
import pytest
from mergec.compiler.family.config_rules import Undecided
from mergec.compiler.family.family import family_for
from mergec.compiler.family.layer_facts import StackFacts
from mergec.grammar.diagnostic import MergecError

WIDTH = 4


def model(config: dict[str, Any], *stacks: tuple[str, int], extra: dict[str, tuple[int, ...]] | None = None) -> Any:
    """A model with a tensor a layer in each stack, of this prefix and depth."""
    tensors = {"model.embed_tokens.weight": ("F32", (8, WIDTH)), "model.norm.weight": ("F32", (WIDTH,))}
    for prefix, depth in stacks or (("model.layers", config.get("num_hidden_layers", 0)),):
        tensors |= {f"{prefix}.{i}.mlp.up_proj.weight": ("F32", (WIDTH, WIDTH)) for i in range(depth)}
    tensors |= {name: ("F32", shape) for name, shape in (extra or {}).items()}
    return {"tensors": tensors, "config": {"vocab_size": 8, "tie_word_embeddings": True, **config}}


def compiled(recipe: str, **models: Any) -> tuple[dict[str, Any], list[str]]:
    """config.json, and the codes of the warnings."""
    lets = "".join(f'let {name} = model("{name}")\n' for name in models)
    made = mergec.compile(lets + recipe, catalog=mergec.MemoryCatalog(models), device="cpu")
    (text,) = [d.text for d in made.plan.documents if d.name == "config.json"]
    return json.loads(text), [d.code for d in made.diagnostics]


def codes(recipe: str, **models: Any) -> list[str]:
    with pytest.raises(MergecError) as caught:
        compiled(recipe, **models)
    return [d.code for d in caught.value.diagnostics if d.code.startswith("E")]


# --- rules ---------------------------------------------------------------------------------------

GEMMA3 = {"model_type": "gemma3_text", "num_hidden_layers": 8, "sliding_window_pattern": 4}
DEEPSEEK = {"model_type": "deepseek_v3", "num_hidden_layers": 6, "first_k_dense_replace": 2}


def kinds(config: dict[str, Any]) -> list[str]:
    """What Gemma 3 makes of its layers."""
    pattern = config.get("sliding_window_pattern", 6)
    derived = [("sliding" if (i + 1) % pattern else "full") + "_attention" for i in range(config["num_hidden_layers"])]
    return config.get("layer_types") or derived


@pytest.mark.parametrize(
    ("parts", "listed"),
    [
        ([(0, 7), (0, 3)], False),
        ([(0, 3)], False),
        ([(4, 7), (0, 2)], False),
        ([(0, 5), (2, 7)], False),
        ([(0, 5), (3, 7)], True),
        ([(1, 7)], True),
    ],
)
def test_a_rule_stays_where_it_says_the_same(parts: list[tuple[int, int]], listed: bool) -> None:
    taken = ", ".join(f"a.layers[{first}..{last}]" for first, last in parts)
    made, warned = compiled(f"* = a\nlayers = stack({taken})", a=model(GEMMA3))
    order = [i for first, last in parts for i in range(first, last + 1)]
    assert kinds(made) == [kinds(GEMMA3)[i] for i in order]
    assert ("layer_types" in made, made["sliding_window_pattern"], warned) == (listed, 4, [])


def test_a_list_that_is_null_is_none() -> None:
    a = model({**GEMMA3, "layer_types": None})
    made, _ = compiled("* = a\nlayers = stack(a.layers[1..7])", a=a)
    assert made["layer_types"] == kinds(GEMMA3)[1:]
    made, _ = compiled("* = a", a=a)
    assert made == a["config"]


@pytest.mark.parametrize(
    ("parts", "dense"),
    [
        ([(0, 5)], 2),
        ([(0, 1), (0, 5)], None),
        ([(0, 1), (1, 5)], 3),
        ([(2, 5)], 0),
        ([(0, 1)], 2),
        ([(2, 5), (0, 0)], None),
    ],
)
def test_the_number_of_dense_layers_follows(parts: list[tuple[int, int]], dense: int | None) -> None:
    taken = ", ".join(f"a.layers[{first}..{last}]" for first, last in parts)
    recipe = f"* = a\nlayers = stack({taken})"
    if dense is None and parts[0][0] == 2:
        assert codes(recipe, a=model(DEEPSEEK)) == ["E0474"]
        return
    order = [i for first, last in parts for i in range(first, last + 1)]
    if dense is None:
        assert codes(recipe, a=model(DEEPSEEK)) == [] if sorted(order) == order else ["E0474"]
        return
    made, _ = compiled(recipe, a=model(DEEPSEEK))
    assert made["first_k_dense_replace"] == dense


def test_what_the_recipe_gives_is_its_own_affair() -> None:
    recipe = "output(config={first_k_dense_replace: 5})\n* = a\nlayers = stack(a.layers[2..5], a.layers[0])"
    made, _ = compiled(recipe, a=model(DEEPSEEK))
    assert made["first_k_dense_replace"] == 5


def test_silence_means_what_the_family_says() -> None:
    """Without `first_k_dense_replace` the first three are dense."""
    a = model({"model_type": "deepseek_v3", "num_hidden_layers": 6})
    made, _ = compiled("* = a\nlayers = stack(a.layers[1..5])", a=a)
    assert made["first_k_dense_replace"] == 2
    made, _ = compiled("* = a\nlayers = stack(a.layers[0..5], a.layers[3..5])", a=a)
    assert "first_k_dense_replace" not in made


def test_layers_of_another_model_are_what_its_config_says() -> None:
    b = model({**GEMMA3, "sliding_window_pattern": 2})
    made, _ = compiled("* = a\nlayers[2..3] = b.layers[2..3]\nlayers[5] = b.layers[7]", a=model(GEMMA3), b=b)
    wanted = kinds(GEMMA3)
    wanted[5] = "full_attention"
    assert made["layer_types"] == wanted


# --- numbers and lists, inferred -----------------------------------------------------------------


def test_numbers_of_layers_follow() -> None:
    a = model({"model_type": "unheard", "num_hidden_layers": 4, "full_attn_idxs": [1], "out_layers": [2]})
    made, _ = compiled("* = a\nlayers = stack(a.layers[0..2], a.layers[1..3])", a=a)
    assert (made["full_attn_idxs"], made["out_layers"]) == ([1, 3], [2])
    made, _ = compiled("* = a\nlayers = stack(a.layers[2..3])", a=a)
    assert made["full_attn_idxs"] == []


@pytest.mark.parametrize(
    ("key", "items", "followed"),
    [
        ("block_configs", [{"width": k} for k in range(4)], True),
        ("intermediate_size", [4, 8, 4, 8], True),
        ("attention_kinds", [["x", 1], ["y", 2], ["x", 3], ["y", 4]], True),
        ("moe_topk", [1, 2, 2, 1], True),
        ("forced_tokens", [5, 1, 2, 3], False),
        ("label_names", ["p", "q", "r", "s"], False),
        ("out_indices", [0, 1, 2, 3], False),
    ],
)
def test_lists_of_any_name(key: str, items: list[Any], followed: bool) -> None:
    a = model({"model_type": "unheard", "num_hidden_layers": 4, key: items})
    made, _ = compiled("* = a\nlayers = stack(a.layers[2..3], a.layers[0])", a=a)
    assert made[key] == ([items[2], items[3], items[0]] if followed else items)


TOWERS = (("model.language_model.layers", 4), ("model.visual.blocks", 4))
MIXED = {"layer_types": ["p", "q", "r", "s"]}


def test_of_stacks_as_deep_each_has_its_own_lists() -> None:
    config = {
        "model_type": "unheard_vl",
        "text_config": {"num_hidden_layers": 4, **MIXED},
        "vision_config": {"depth": 4, "layer_types": ["v0", "v1", "v2", "v3"]},
    }
    made, _ = compiled("* = a\ntext.layers = stack(a.text.layers[2..3])", a=model(config, *TOWERS))
    assert made["text_config"]["layer_types"] == ["r", "s"]
    assert made["vision_config"] == config["vision_config"]
    made, _ = compiled("* = a\nvision.layers = stack(a.vision.layers[0..2])", a=model(config, *TOWERS))
    assert made["vision_config"] == {"depth": 3, "layer_types": ["v0", "v1", "v2"]}
    assert made["text_config"] == config["text_config"]


def test_a_list_at_both_levels_follows_at_both() -> None:
    config = {
        "model_type": "unheard_vl",
        "num_hidden_layers": 4,
        **MIXED,
        "text_config": {"num_hidden_layers": 4, **MIXED},
    }
    made, _ = compiled("* = a\nlayers = stack(a.layers[2..3])", a=model(config))
    assert made["layer_types"] == made["text_config"]["layer_types"] == ["r", "s"]


# --- depths, extra layers, experts ---------------------------------------------------------------


def t5(**config: Any) -> Any:
    tensors = {"shared.weight": ("F32", (8, WIDTH))}
    for side in ("encoder", "decoder"):
        tensors |= {f"{side}.block.{i}.layer.0.SelfAttention.q.weight": ("F32", (WIDTH, WIDTH)) for i in range(2)}
    return {"tensors": tensors, "config": {"model_type": "t5", "num_layers": 2, "vocab_size": 8, **config}}


@pytest.mark.parametrize("said", [{}, {"num_decoder_layers": None}, {"num_decoder_layers": 2}])
def test_a_stack_that_was_as_deep_as_another_by_silence(said: dict[str, Any]) -> None:
    recipe = "* = a\nencoder.layers = stack(a.encoder.layers[0..1], a.encoder.layers[1])"
    made, warned = compiled(recipe, a=t5(**said))
    assert (made["num_layers"], made["num_decoder_layers"], warned) == (3, 2, [])
    made, _ = compiled("* = a", a=t5(**said))
    assert made == t5(**said)["config"]


EXTRA = {"model_type": "deepseek_v3", "num_hidden_layers": 3, "num_nextn_predict_layers": 1, "first_k_dense_replace": 0}


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        ("* = a", (3, 1)),
        ("output(layers=3)\n* = a", (3, 0)),
        ("output(layers=2)\n* = a", (2, 0)),
        ("* = a\nlayers = stack(a.layers[0..2])", (3, 0)),
        ("* = a\nlayers = stack(a.layers[0..1], a.layers[0..3])", (5, 1)),
        ("output(like=b)\n* = a\nlayers = stack(b.layers[0..2], a.layers[3])", (3, 1)),
        ("output(like=b)\n* = b\nlayers[0] = a.layers[1]", (3, 0)),
    ],
)
def test_extra_layers_are_counted_where_they_are(recipe: str, wanted: tuple[int, int]) -> None:
    a, b = model(EXTRA, ("model.layers", 4)), model({**EXTRA, "num_nextn_predict_layers": 0})
    made, _ = compiled(recipe, a=a, **({"b": b} if "b" in recipe.replace("* ", "") else {}))
    assert (made["num_hidden_layers"], made["num_nextn_predict_layers"]) == wanted


@pytest.mark.parametrize("parts", ["a.layers[0..3], a.layers[0]", "a.layers[1..3], a.layers[3]"])
def test_an_extra_layer_is_no_ordinary_one(parts: str) -> None:
    assert codes(f"* = a\nlayers = stack({parts})", a=model(EXTRA, ("model.layers", 4))) == ["E0476"]


def mixtral(experts: int, said: int | None = None) -> Any:
    config = {"model_type": "mixtral", "num_hidden_layers": 2, "num_local_experts": experts if said is None else said}
    names = {f"model.layers.{i}.block_sparse_moe.experts.{e}.w1.weight" for i in range(2) for e in range(experts)}
    return model(config, ("model.layers", 2), extra=dict.fromkeys(sorted(names), (WIDTH, WIDTH)))


def test_the_number_of_experts_follows() -> None:
    recipe = "output(like=a)\n* = a\nlayers = stack(b.layers[0..1])"
    made, warned = compiled(recipe, a=mixtral(2), b=mixtral(4))
    assert (made["num_local_experts"], warned) == (4, [])
    recipe = "output(like=a)\n* = a\nlayers = stack(a.layers[0], b.layers[1])"
    assert codes(recipe, a=mixtral(2), b=mixtral(4)) == ["E0472"]


def test_parts_of_layers_of_two_kinds() -> None:
    gemma = model({**GEMMA3, "sliding_window_pattern": 2})
    for i in range(8):
        gemma["tensors"][f"model.layers.{i}.self_attn.q_proj.weight"] = ("F32", (WIDTH, WIDTH))
    # what is no attention tells nothing of what it attends to
    made, warned = compiled("* = a\nlayers[0..5].mlp = a.layers[1..6].mlp", a=gemma)
    assert (made, warned) == (gemma["config"], [])
    made, _ = compiled("* = a\nlayers[0].self_attn = a.layers[1].self_attn", a=gemma)
    assert made["layer_types"] == ["full_attention", *kinds(gemma["config"])[1:]]
    made, warned = compiled("* = a\nlayers[1] = slerp(a.layers[1], a.layers[2], t=0.5)", a=gemma)
    assert (made, warned) == (gemma["config"], ["W0591"])


def test_only_a_key_that_says_the_number_stills_the_warning() -> None:
    a = model({"model_type": "unheard", "blocks": 4}, ("model.layers", 4))
    for given, wanted in (("", ["W0580"]), (", config={blocks: 2}", []), (", config={use_cache: false}", ["W0580"])):
        assert compiled(f"output(layers=2{given})\n* = a", a=a)[1] == wanted


# --- the facts themselves ------------------------------------------------------------------------


def test_facts_of_a_config() -> None:
    names = ["model.layers.0.mlp.up_proj.weight"]
    family = family_for(GEMMA3, names)
    (stack,) = family.stacks
    (fact,) = stack.facts
    told = StackFacts(family, stack, {**GEMMA3, "layer_types": ["x", "y"]}, 4)
    assert [told.value(fact, i) for i in range(4)] == ["x", "y", "sliding_attention", "full_attention"]
    told = StackFacts(family, stack, {**GEMMA3, "sliding_window_pattern": "odd"}, 4)
    with pytest.raises(Undecided):
        told.value(fact, 0)
