"""The language model of a multimodal one is a model of its own: plain language models merge into
it, and it comes out as one. Models made small by transformers, which also says what is right."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mergec
import pytest
import torch
import transformers as tf
from merging import compile_folders, merge_folders
from safetensors.torch import load_file, save_file

TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
QWEN_TOWER: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "out_hidden_size": 16,
    "num_heads": 2,
    "patch_size": 8,
}
QWEN_TOKENS = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
ROPE: dict[str, Any] = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
IDS = torch.tensor([[3, 14, 15, 9, 26, 5, 35, 8]])


def gemma3(tied: bool) -> Any:
    config = tf.Gemma3Config(
        text_config=dict(TEXT),
        vision_config=dict(TOWER),
        mm_tokens_per_image=4,
        image_token_index=60,
        boi_token_index=61,
        eoi_token_index=62,
        tie_word_embeddings=tied,
    )
    return tf.Gemma3ForConditionalGeneration(config)


def idefics3(tied: bool) -> Any:
    config = tf.Idefics3Config(
        text_config=TEXT | {"model_type": "llama"},
        vision_config=dict(TOWER),
        scale_factor=2,
        image_token_id=60,
        tie_word_embeddings=tied,
        pad_token_id=0,
    )
    return tf.Idefics3ForConditionalGeneration(config)


def internvl(tied: bool) -> Any:
    config = tf.InternVLConfig(
        text_config=TEXT | {"model_type": "qwen2"},
        vision_config=TOWER | {"image_size": [16, 16], "patch_size": [8, 8]},
        image_token_id=60,
        tie_word_embeddings=tied,
    )
    return tf.InternVLForConditionalGeneration(config)


def llama4(tied: bool) -> Any:
    tower = {"vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16}
    config = tf.Llama4Config(
        text_config=dict(LLAMA4),
        vision_config=TOWER | tower | {"intermediate_size": 64},
        image_token_index=60,
        tie_word_embeddings=tied,
    )
    return tf.Llama4ForConditionalGeneration(config)


def llava(tied: bool) -> Any:
    config = tf.LlavaConfig(
        text_config=TEXT | {"model_type": "llama"},
        vision_config=TOWER | {"model_type": "clip_vision_model"},
        image_token_index=60,
        tie_word_embeddings=tied,
    )
    return tf.LlavaForConditionalGeneration(config)


def mistral3(tied: bool) -> Any:
    config = tf.Mistral3Config(
        text_config=TEXT | {"model_type": "mistral"},
        vision_config=TOWER | {"model_type": "pixtral", "head_dim": 8},
        image_token_index=60,
        spatial_merge_size=1,
        tie_word_embeddings=tied,
    )
    return tf.Mistral3ForConditionalGeneration(config)


def qwen2_audio(tied: bool) -> Any:
    tower = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
    config = tf.Qwen2AudioConfig(
        text_config=TEXT | {"model_type": "qwen2"},
        audio_config=tower | {"num_mel_bins": 8, "max_source_positions": 32},
        audio_token_index=60,
        tie_word_embeddings=tied,
    )
    return tf.Qwen2AudioForConditionalGeneration(config)


def qwen2_vl(tied: bool) -> Any:
    tower = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
    config = tf.Qwen2VLConfig(
        text_config=TEXT | {"rope_parameters": ROPE}, vision_config=tower, tie_word_embeddings=tied, **QWEN_TOKENS
    )
    return tf.Qwen2VLForConditionalGeneration(config)


def qwen2_5_vl(tied: bool) -> Any:
    config = tf.Qwen2_5_VLConfig(
        text_config=TEXT | {"rope_parameters": ROPE},
        vision_config=dict(QWEN_TOWER),
        tie_word_embeddings=tied,
        **QWEN_TOKENS,
    )
    return tf.Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl(tied: bool) -> Any:
    config = tf.Qwen3VLConfig(
        text_config=TEXT | {"rope_parameters": ROPE},
        vision_config=QWEN_TOWER | {"deepstack_visual_indexes": [0]},
        tie_word_embeddings=tied,
        **QWEN_TOKENS,
    )
    return tf.Qwen3VLForConditionalGeneration(config)


def smolvlm(tied: bool) -> Any:
    config = tf.SmolVLMConfig(
        text_config=TEXT | {"model_type": "llama"},
        vision_config=dict(TOWER),
        scale_factor=2,
        image_token_id=60,
        tie_word_embeddings=tied,
        pad_token_id=0,
    )
    return tf.SmolVLMForConditionalGeneration(config)


def voxtral(tied: bool) -> Any:
    config = tf.VoxtralConfig(
        text_config=TEXT | {"model_type": "llama"},
        audio_config=TOWER | {"intermediate_size": 64, "num_mel_bins": 8, "max_source_positions": 32},
        audio_token_id=60,
        tie_word_embeddings=tied,
    )
    return tf.VoxtralForConditionalGeneration(config)


LLAMA4 = TEXT | {"intermediate_size_mlp": 24, "num_local_experts": 2, "interleave_moe_layer_step": 2}

Make = Callable[[bool], Any]


def language_model(kind: str, config: str, values: Mapping[str, Any] = TEXT) -> Make:
    return lambda tied: getattr(tf, kind)(getattr(tf, config)(**values, tie_word_embeddings=tied))


GEMMA3 = language_model("Gemma3ForCausalLM", "Gemma3TextConfig")
LLAMA = language_model("LlamaForCausalLM", "LlamaConfig")
MISTRAL = language_model("MistralForCausalLM", "MistralConfig")
QWEN2 = language_model("Qwen2ForCausalLM", "Qwen2Config")
QWEN3 = language_model("Qwen3ForCausalLM", "Qwen3Config")

# a multimodal model, the type of its language model, and whether it is tied
CASES: list[tuple[Make, Make, bool]] = [
    (gemma3, GEMMA3, True),
    (idefics3, LLAMA, False),
    (internvl, QWEN2, False),
    (llama4, language_model("Llama4ForCausalLM", "Llama4TextConfig", LLAMA4), False),
    (llava, LLAMA, False),
    (mistral3, MISTRAL, True),
    (qwen2_5_vl, QWEN2, False),
    (qwen2_audio, QWEN2, False),
    (qwen2_vl, QWEN2, True),
    (qwen3_vl, QWEN3, True),
    (smolvlm, LLAMA, True),
    (voxtral, LLAMA, False),
]


@dataclass(frozen=True)
class Case:
    """A multimodal model and two language models, as folders; `make` builds the first."""

    make: Make
    plain: Make
    tied: bool
    vlm: Path
    math: Path
    base: Path


def save(make: Make, tied: bool, seed: int, folder: Path) -> Path:
    torch.manual_seed(seed)
    model = make(tied)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def loaded(make: Make, tied: bool, folder: Path) -> Any:
    """The model as transformers loads it, with no tensor missing, left over or of another shape."""
    model, said = type(make(tied)).from_pretrained(folder, output_loading_info=True)
    assert {what: list(names) for what, names in said.items() if names} == {}
    return model.eval()


def text_of(model: Any) -> dict[str, torch.Tensor]:
    """The tensors of the language model, head included, by the names that it has for them."""
    return {**model.get_decoder().state_dict(), "head": model.get_output_embeddings().weight}


def mean(*models: Any) -> dict[str, torch.Tensor]:
    found = [text_of(model) for model in models]
    assert all(one.keys() == found[0].keys() for one in found)
    with torch.no_grad():
        return {n: (sum(one[n].double() for one in found) / len(found)).float() for n in found[0]}


def put(model: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The model with another language model."""
    with torch.no_grad():
        for name, tensor in text_of(model).items():
            tensor.copy_(tensors[name])
    return model


def logits(model: Any) -> torch.Tensor:
    # transformers 5.24 can't run Llama 4 on text alone but by its language model
    asked = model.language_model if isinstance(model, tf.Llama4ForConditionalGeneration) else model
    with torch.no_grad():
        found: torch.Tensor = asked(input_ids=IDS).logits
    return found


def same(made: Any, wanted: Any) -> None:
    """Equal tensors and equal logits."""
    one, two = made.state_dict(), wanted.state_dict()
    assert one.keys() == two.keys()
    for name, tensor in two.items():
        torch.testing.assert_close(one[name], tensor, rtol=1e-6, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(logits(made), logits(wanted), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[0].__name__)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    make, plain, tied = request.param
    at = tmp_path_factory.mktemp(make.__name__)
    return Case(
        make, plain, tied, save(make, tied, 1, at / "v"), save(plain, tied, 2, at / "m"), save(plain, tied, 3, at / "b")
    )


def test_language_models_merge_into_a_multimodal_one(case: Case, tmp_path: Path) -> None:
    recipe = "output(like=vlm)\ntext = linear(vlm.text, math, base)"
    made = merge_folders(recipe, tmp_path / "out", vlm=case.vlm, math=case.math, base=case.base)
    assert [d.code for d in made.diagnostics] == []
    whole, one, two = (
        loaded(make, case.tied, folder)
        for make, folder in ((case.make, case.vlm), (case.plain, case.math), (case.plain, case.base))
    )
    same(loaded(case.make, case.tied, tmp_path / "out"), put(whole, mean(whole, one, two)))
    stored, kept = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", case.vlm))
    assert stored.keys() == kept.keys()
    assert {c.name: [d.message for d in c.findings] for c in mergec.verify(tmp_path / "out").checks if c.findings} == {}


def test_what_a_fine_tune_learned_is_added(case: Case, tmp_path: Path) -> None:
    """By a model without a place, by one with, and single places alike."""
    for k, recipe in enumerate(
        (
            "text = vlm + 0.5*(math - base)",
            "text = vlm.text + 0.5*(math - base)",
            "text.layers = vlm + 0.5*(math - base)\nembed = vlm.embed + 0.5*(math - base)\n"
            "norm = vlm.norm + 0.5*(math.norm - base.norm)" + "\nhead = vlm + 0.5*(math - base)" * (not case.tied),
        )
    ):
        out = tmp_path / f"out{k}"
        made = merge_folders(f"output(like=vlm)\n{recipe}", out, vlm=case.vlm, math=case.math, base=case.base)
        assert [d.code for d in made.diagnostics] == []
        whole, math, base = (
            loaded(make, case.tied, folder)
            for make, folder in ((case.make, case.vlm), (case.plain, case.math), (case.plain, case.base))
        )
        old, one, two = (text_of(m) for m in (whole, math, base))
        wanted = {n: (old[n].double() + 0.5 * (one[n].double() - two[n].double())).float() for n in old}
        same(loaded(case.make, case.tied, out), put(whole, wanted))


def test_the_language_model_comes_out(case: Case, tmp_path: Path) -> None:
    made = merge_folders("output(like=math)\n* = vlm.text", tmp_path / "out", vlm=case.vlm, math=case.math)
    assert [d.code for d in made.diagnostics] == []
    whole, plain = loaded(case.make, case.tied, case.vlm), loaded(case.plain, case.tied, case.math)
    same(loaded(case.plain, case.tied, tmp_path / "out"), put(plain, text_of(whole)))
    merge_folders("output(like=math)\n* = linear(math, vlm.text)", tmp_path / "both", vlm=case.vlm, math=case.math)
    plain = loaded(case.plain, case.tied, case.math)
    same(loaded(case.plain, case.tied, tmp_path / "both"), put(plain, mean(plain, whole)))


@pytest.mark.parametrize(
    "method",
    [
        "ties({}, math, base=base, density=0.5)",
        "dare_ties({}, math, base=base, density=0.5)",
        "della({}, math, base=base, density=0.5, epsilon=0.1)",
        "slerp({}, math, t={{attn: 0.2, mlp: curve([0, 1]), _: 0.5}})",
        "karcher({}, math, base)",
    ],
)
def test_a_method_gives_what_it_gives_to_language_models(method: str, tmp_path: Path) -> None:
    """Bit for bit, but for random masks, which go by the output's names."""
    vlm, math, base = (
        save(mistral3, False, 1, tmp_path / "v"),
        *(save(MISTRAL, False, k, tmp_path / f"{k}") for k in (2, 3)),
    )
    merge_folders("output(like=math)\n* = vlm.text", tmp_path / "text", vlm=vlm, math=math)
    into = f"output(like=vlm)\ntext = {method.format('vlm.text')}"
    merge_folders(into, tmp_path / "into", vlm=vlm, math=math, base=base)
    among = f"output(like=math)\n* = {method.format('text')}".replace("text", "own")
    merge_folders(among, tmp_path / "among", own=tmp_path / "text", math=math, base=base)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("into", "among"))
    for name, tensor in two.items():
        if method.startswith(("dare", "della")):
            assert one[f"language_model.{name}"].shape == tensor.shape
        else:
            assert torch.equal(one[f"language_model.{name}"], tensor), name


def test_an_adapter_of_a_language_model_goes_along(tmp_path: Path) -> None:
    vlm, base = save(idefics3, False, 1, tmp_path / "v"), save(LLAMA, False, 2, tmp_path / "b")
    name = "model.layers.1.mlp.up_proj"
    a, b = torch.randn(4, 16), torch.randn(24, 4)
    (tmp_path / "lora").mkdir()
    factors = {f"base_model.model.{name}.lora_{x}.weight": t for x, t in (("A", a), ("B", b))}
    save_file(factors, tmp_path / "lora" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["up_proj"]}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    recipe = f'let chat = base + lora("{tmp_path}/lora")\noutput(like=vlm)\ntext = vlm + (chat - base)'
    merge_folders(recipe, tmp_path / "out", vlm=vlm, base=base)
    one, made = (load_file(folder / "model.safetensors") for folder in (vlm, tmp_path / "out"))
    for own, tensor in made.items():
        change = 2 * (b.double() @ a.double()) if own == "model.text_model.layers.1.mlp.up_proj.weight" else 0
        torch.testing.assert_close(tensor, (one[own].double() + change).float(), rtol=1e-5, atol=1e-5)


def test_a_model_of_parts_takes_a_language_model_as_one(tmp_path: Path) -> None:
    vlm, math, base = save(llava, False, 1, tmp_path / "v"), *(save(LLAMA, False, k, tmp_path / f"{k}") for k in (2, 3))
    recipe = "let whole = {text: linear(math, base), _: vlm}\noutput(like=vlm)\n* = slerp(whole, vlm, t=0)"
    merge_folders(recipe, tmp_path / "out", vlm=vlm, math=math, base=base)
    whole, one, two = loaded(llava, False, vlm), loaded(LLAMA, False, math), loaded(LLAMA, False, base)
    same(loaded(llava, False, tmp_path / "out"), put(whole, mean(one, two)))


def test_vocabularies_of_unequal_sizes_are_left_or_reconciled(tmp_path: Path) -> None:
    """A multimodal model has tokens for pictures that the language model lacks."""
    vlm = save(llava, False, 1, tmp_path / "v")
    math = save(language_model("LlamaForCausalLM", "LlamaConfig", TEXT | {"vocab_size": 60}), False, 2, tmp_path / "m")
    with pytest.raises(mergec.MergecError) as caught:
        compile_folders("output(like=vlm)\ntext = linear(vlm.text, math)", vlm=vlm, math=math)
    (found,) = caught.value.diagnostics
    assert (found.code, found.message) == ("E0311", "the vocabularies differ: 64 and 60 rows")
    assert found.help[1] == "or keep those of one model: `embed = vlm` and `head = vlm`"
    out = tmp_path / "kept"
    merge_folders("output(like=vlm)\ntext = linear(vlm.text, math)\nhead = vlm\nembed = vlm", out, vlm=vlm, math=math)
    one, two, made = (load_file(folder / "model.safetensors") for folder in (vlm, math, out))
    for name, tensor in made.items():
        plain = name.removeprefix("language_model.")
        same = plain == name or tensor.shape[0] == 64
        wanted = one[name] if same else ((one[name].double() + two[plain].double()) / 2).float()
        torch.testing.assert_close(tensor, wanted, rtol=1e-6, atol=1e-7)
    words = {f"w{k}": k for k in range(64)}
    write_tokenizer(vlm, words)
    write_tokenizer(math, {word: k for k, word in enumerate(reversed(list(words)[:60]))})
    out = tmp_path / "moved"
    recipe = "output(like=vlm, tokenizer=vlm)\ntext = linear(vlm.text, math)"
    merge_folders(recipe, out, vlm=vlm, math=math)
    made = load_file(out / "model.safetensors")
    for end in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = made[f"language_model.{end}"]
        ours, theirs = one[f"language_model.{end}"].double(), two[end].double()
        for k in range(64):
            # a token that the language model lacks gets the multimodal one's row in its place
            wanted = (ours[k] + (theirs[59 - k] if k < 60 else ours[k])) / 2
            torch.testing.assert_close(rows[k], wanted.float(), rtol=1e-6, atol=1e-7)


def write_tokenizer(folder: Path, words: Mapping[str, int]) -> None:
    text = {"model": {"type": "WordLevel", "vocab": dict(words), "unk_token": "w0"}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(text), "utf-8")


def test_an_untied_head_is_not_dropped_where_the_multimodal_model_is_tied(tmp_path: Path) -> None:
    vlm, math = save(llava, True, 1, tmp_path / "v"), save(LLAMA, False, 2, tmp_path / "m")
    recipe = "output(like=vlm)\ntext = linear(vlm.text, math)"
    with pytest.raises(mergec.MergecError) as caught:
        compile_folders(recipe, vlm=vlm, math=math)
    (found,) = caught.value.diagnostics
    assert found.code == "E0310"
    merge_folders(recipe + "\nhead = linear(vlm, math)", tmp_path / "own", vlm=vlm, math=math)
    whole, plain = loaded(llava, True, vlm), loaded(LLAMA, False, math)
    made = loaded(llava, False, tmp_path / "own")
    torch.testing.assert_close(made.get_output_embeddings().weight, mean(whole, plain)["head"])
    torch.testing.assert_close(made.get_input_embeddings().weight, mean(whole, plain)["embed_tokens.weight"])
    # the other way round a tied model gives its embedding
    both = save(llava, False, 3, tmp_path / "w"), save(LLAMA, True, 4, tmp_path / "n")
    merge_folders(recipe, tmp_path / "untied", vlm=both[0], math=both[1])
    whole, plain = loaded(llava, False, both[0]), loaded(LLAMA, True, both[1])
    same(loaded(llava, False, tmp_path / "untied"), put(whole, mean(whole, plain)))


def test_layers_that_the_output_lacks_are_not_dropped(tmp_path: Path) -> None:
    vlm = save(llava, False, 1, tmp_path / "v")
    deep = save(
        language_model("LlamaForCausalLM", "LlamaConfig", TEXT | {"num_hidden_layers": 5}), False, 2, tmp_path / "m"
    )
    with pytest.raises(mergec.MergecError) as caught:
        compile_folders("output(like=vlm)\ntext = linear(vlm.text, deep)", vlm=vlm, deep=deep)
    (found,) = caught.value.diagnostics
    assert found.code == "E0315"
    assert "`text.layers[0..2] = …`" in found.help[0]
    compile_folders(
        "output(like=vlm)\ntext.layers[0..2] = linear(vlm, deep.layers[0..2])\nnorm = linear(vlm, deep)",
        vlm=vlm,
        deep=deep,
    )


def test_two_multimodal_models_of_other_wrapping_share_their_language_models(tmp_path: Path) -> None:
    one, two = save(llava, False, 1, tmp_path / "one"), save(idefics3, False, 2, tmp_path / "two")
    merge_folders("output(like=one)\ntext = linear(one.text, two.text)", tmp_path / "out", one=one, two=two)
    whole, other = loaded(llava, False, one), loaded(idefics3, False, two)
    same(loaded(llava, False, tmp_path / "out"), put(whole, mean(whole, other)))


def test_a_language_model_alone_is_no_multimodal_model(tmp_path: Path) -> None:
    vlm, math = save(llava, False, 1, tmp_path / "v"), save(LLAMA, False, 2, tmp_path / "m")
    with pytest.raises(mergec.MergecError) as caught:
        compile_folders("output(like=vlm)\n* = linear(vlm, math)", vlm=vlm, math=math)
    (found,) = caught.value.diagnostics
    assert found.code == "E0306"
    assert found.help == ("`math` is a language model, which corresponds to `text`: `text = …`",)
