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
            {"model_type": "unheard_vlm", "text_config": {"model_type": "llama"}},
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


# --- parts ----------------------------------------------------------------------------------------


def run(prefix: str, count: int, *modules: str) -> list[str]:
    return [f"{prefix}.{i}.{module}.weight" for i in range(count) for module in modules]


CONVOLUTIONS = run("wav2vec2.feature_extractor.conv_layers", 7, "conv", "layer_norm")
BLOCK = ("attention.q_proj", "feed_forward.up_proj", "layer_norm")


def stacks_of(names: list[str], config: dict[str, Any] | None = None) -> dict[str, str]:
    return {stack.name: stack.prefix.removesuffix(".{i}") for stack in family_for(config, names).stacks}


def test_convolutions_in_front_of_a_stack_do_not_rename_it() -> None:
    names = [*CONVOLUTIONS, *run("wav2vec2.encoder.layers", 4, *BLOCK), "wav2vec2.encoder.layer_norm.weight"]
    assert stacks_of(names) == {
        "wav2vec2.feature_extractor.conv_layers": "wav2vec2.feature_extractor.conv_layers",
        "layers": "wav2vec2.encoder.layers",
    }


def test_a_network_of_convolutions_alone_has_them_as_its_stacks() -> None:
    assert stacks_of(run("stages", 4, "conv1", "conv2")) == {"layers": "stages"}


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        ("encoder.encoder.layer", "decoder.bert.encoder.layer"),
        ("encoder.encoder.layers", "decoder.transformer.h"),
        ("model.encoder.layers", "model.decoder.layers"),
    ],
)
def test_the_outer_word_tells_encoder_from_decoder(encoder: str, decoder: str) -> None:
    names = [*run(encoder, 3, *BLOCK), *run(decoder, 4, *BLOCK, "crossattention.q_proj")]
    assert stacks_of(names) == {"encoder.layers": encoder, "decoder.layers": decoder}
    places = family_for(None, names).places
    assert [*places["encoder"], *places["decoder"]] == [
        path[: path.index(word) + len(word)] for path, word in ((encoder, "encoder"), (decoder, "decoder"))
    ]


def test_an_audio_encoder_keeps_its_name_beside_its_convolutions() -> None:
    names = [
        *[name.replace("wav2vec2", "encoder") for name in CONVOLUTIONS],
        *run("encoder.encoder.layers", 3, *BLOCK),
        *run("decoder.model.layers", 4, *BLOCK),
    ]
    found = stacks_of(names)
    assert found["encoder.layers"] == "encoder.encoder.layers"
    assert found["decoder.layers"] == "decoder.model.layers"


def test_of_several_stacks_of_one_part_the_longest_has_its_name() -> None:
    names = [
        *run("vision_model.transformer.layers", 32, *BLOCK),
        *run("vision_model.global_transformer.layers", 8, *BLOCK),
        *run("language_model.model.layers", 40, *BLOCK),
    ]
    assert stacks_of(names) == {
        "vision.layers": "vision_model.transformer.layers",
        "vision_model.global_transformer.layers": "vision_model.global_transformer.layers",
        "text.layers": "language_model.model.layers",
    }


@pytest.mark.parametrize(
    ("text", "head", "vision", "projector"),
    [
        ("language_model", "language_model.lm_head", "vision_tower", "multi_modal_projector"),
        ("model.language_model", "lm_head", "model.vision_tower", "model.multi_modal_projector"),
        ("model.text_model", "lm_head", "model.vision_model", "model.connector"),
        ("model.language_model", "lm_head", "model.visual", "model.visual.merger"),
    ],
)
def test_the_parts_of_a_multimodal_model(text: str, head: str, vision: str, projector: str) -> None:
    inner = f"{text}.model" if head.startswith(text) else text
    names = [
        *run(f"{inner}.layers", 4, *BLOCK),
        *run(f"{vision}.blocks", 3, *BLOCK),
        f"{inner}.embed_tokens.weight",
        f"{inner}.norm.weight",
        f"{head}.weight",
        f"{vision}.patch_embed.proj.weight",
        f"{vision}.post_layernorm.weight",
        f"{projector}.norm.weight",
        f"{projector}.linear.weight",
    ]
    places = family_for(None, names).places
    assert set(places["text"]) == {text, *([] if head.startswith(text) else [head])}
    assert (places["vision"], places["projector"]) == ((vision,), (projector,))
    assert (places["embed"], places["norm"], places["head"]) == (
        (f"{inner}.embed_tokens",),
        (f"{inner}.norm",),
        (head,),
    )
    assert (places["text.embed"], places["text.norm"]) == (places["embed"], places["norm"])
    assert (places["vision.embed"], places["vision.norm"]) == (
        (f"{vision}.patch_embed",),
        (f"{vision}.post_layernorm",),
    )


def test_a_text_part_that_no_module_holds_is_what_lies_beside_its_layers() -> None:
    """Qwen2-VL as released; LLaVA 1.5's own files, whose tower lies below the same module."""
    own = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", *run("model.layers", 4, *BLOCK)]
    assert set(family_for(None, [*own, *run("visual.blocks", 3, *BLOCK)]).places["text"]) == {"model", "lm_head"}
    inside = family_for(None, [*own, *run("model.vision_tower.layers", 3, *BLOCK), "model.mm_projector.0.weight"])
    assert set(inside.places["text"]) == {"model.layers", "model.embed_tokens", "model.norm", "lm_head"}
    assert inside.places["vision"] == ("model.vision_tower",)


def test_the_final_norm_is_the_one_beside_the_layers() -> None:
    names = run("model.layers", 3, *BLOCK)
    for other in ("head.norm", "model.embeddings.norm", "projector.norm"):
        family = family_for(None, [*names, f"{other}.weight", "model.final_norm.weight"])
        assert family.places["norm"] == ("model.final_norm",)
    assert family_for(None, [*names, "model.embedding_norm.weight"]).places["norm"] == ("model.embedding_norm",)


def test_a_language_model_of_two_halves_has_an_encoder_and_a_decoder() -> None:
    names = [
        *run("model.vision_tower.blocks", 4, "window_attn.qkv"),
        *run("model.vision_tower.convs", 4, "conv"),
        *run("model.language_model.encoder.layers", 2, *BLOCK),
        *run("model.language_model.decoder.layers", 3, *BLOCK),
    ]
    found = stacks_of(names)
    assert found["encoder.layers"] == "model.language_model.encoder.layers"
    assert found["decoder.layers"] == "model.language_model.decoder.layers"
    assert found["vision.layers"] == "model.vision_tower.blocks"


def test_layers_put_between_others_are_no_second_language_model() -> None:
    names = [
        *run("model.vision_model.encoder.layers", 4, *BLOCK),
        *run("model.layers", 3, *BLOCK),
        *run("model.gated_cross_attn_layers", 3, *BLOCK),
    ]
    assert stacks_of(names)["text.layers"] == "model.layers"


def test_a_word_within_another_says_nothing() -> None:
    """SpeechT5 speaks and reads; its name is no part."""
    names = [*run("speecht5.encoder.layers", 2, *BLOCK), *run("speecht5.decoder.layers", 3, *BLOCK)]
    assert set(stacks_of(names)) == {"encoder.layers", "decoder.layers"}
    family = family_for(None, [*names, "speecht5.decoder.prenet.embed_tokens.weight"])
    assert family.places["embed"] == ("speecht5.decoder.prenet.embed_tokens",)
