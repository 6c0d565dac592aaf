"""Models that no table lists, made small by transformers: a copy and a mean of two load whole, and
compute what they should; config.json goes out as it came in, but for the dtype."""

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
from safetensors.torch import load_file

TEXT: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
BOTH: dict[str, Any] = {
    "vocab_size": 48,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
IDS = torch.tensor([[3, 14, 15, 9, 26, 5, 35, 8]])
GENERATOR = torch.Generator().manual_seed(7)
WAVE = torch.randn(1, 2000, generator=GENERATOR)
PICTURE = torch.randn(1, 3, 32, 32, generator=GENERATOR)
SPECTRUM = torch.randn(1, 8, 32, generator=GENERATOR)


def albert() -> Any:
    return tf.AlbertForMaskedLM(tf.AlbertConfig(**TEXT, embedding_size=8, max_position_embeddings=32))


def bart() -> Any:
    return tf.BartForConditionalGeneration(tf.BartConfig(**BOTH, max_position_embeddings=32))


def bigbird_pegasus() -> Any:
    """Says that it is tied, and stores two tensors that differ."""
    return tf.BigBirdPegasusForCausalLM(tf.BigBirdPegasusConfig(**BOTH, max_position_embeddings=32))


def bros() -> Any:
    return tf.BrosForTokenClassification(tf.BrosConfig(**TEXT | {"hidden_size": 64}, max_position_embeddings=32))


def chameleon() -> Any:
    pictures = {
        "embed_dim": 8,
        "num_embeddings": 8,
        "latent_channels": 8,
        "base_channels": 32,
        "channel_multiplier": [1, 1],
        "num_res_blocks": 5,
        "resolution": 16,
        "attn_resolutions": [],
    }
    config = tf.ChameleonConfig(**TEXT, num_key_value_heads=1, vq_config=pictures, vocabulary_map={"<image>": 3})
    return tf.ChameleonForConditionalGeneration(config)


def efficientnet() -> Any:
    config = tf.EfficientNetConfig(
        image_size=32,
        hidden_dim=128,
        width_coefficient=0.1,
        depth_coefficient=0.1,
        kernel_sizes=[3, 3],
        in_channels=[8, 16],
        out_channels=[16, 16],
        strides=[1, 2],
        num_block_repeats=[1, 2],
        expand_ratios=[1, 6],
    )
    return tf.EfficientNetModel(config)


def idefics3() -> Any:
    """A multimodal model with an untied head at the root, whose text part is a Llama."""
    config = tf.Idefics3Config(
        text_config=TEXT | {"model_type": "llama", "num_key_value_heads": 1},
        vision_config=VISION,
        scale_factor=2,
        image_token_id=40,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    return tf.Idefics3ForConditionalGeneration(config)


def llama() -> Any:
    return tf.LlamaForSequenceClassification(tf.LlamaConfig(**TEXT, num_labels=3))


def mimi() -> Any:
    """Numbered parts between which some hold no tensor."""
    config = tf.MimiConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        codebook_size=16,
        codebook_dim=8,
        num_filters=4,
        vector_quantization_hidden_dimension=8,
        num_quantizers=3,
        upsample_groups=16,
    )
    return tf.MimiModel(config)


def mllama() -> Any:
    """Its embedding has eight rows more than its vocabulary."""
    config = tf.MllamaConfig(
        text_config=TEXT | {"num_key_value_heads": 1, "cross_attention_layers": [1]},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_global_layers": 4,
            "attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
            "vision_output_dim": 32,
            "intermediate_layers_indices": [1],
            "max_num_tiles": 1,
            "supported_aspect_ratios": [[1, 1]],
        },
        image_token_index=47,
    )
    return tf.MllamaForConditionalGeneration(config)


def resnet() -> Any:
    """Counts of batches, integers that only a training step changes."""
    return tf.ResNetForImageClassification(
        tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], num_labels=3)
    )


def wav2vec2() -> Any:
    config = tf.Wav2Vec2Config(
        **TEXT, conv_dim=(8,) * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, do_stable_layer_norm=True
    )
    return tf.Wav2Vec2ForCTC(config)


def whisper() -> Any:
    config = tf.WhisperConfig(
        **BOTH,
        num_mel_bins=8,
        max_source_positions=16,
        max_target_positions=32,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return tf.WhisperForConditionalGeneration(config)


MODELS: Mapping[Callable[[], Any], Mapping[str, Any]] = {
    albert: {"input_ids": IDS},
    bart: {"input_ids": IDS, "decoder_input_ids": IDS[:, :5]},
    bigbird_pegasus: {"input_ids": IDS, "use_cache": False},
    bros: {"input_ids": IDS, "bbox": torch.full((1, 8, 8), 0.25)},
    chameleon: {"input_ids": IDS},
    efficientnet: {"pixel_values": PICTURE},
    idefics3: {"input_ids": IDS},
    llama: {"input_ids": IDS},
    mimi: {"input_values": WAVE[:, None]},
    mllama: {"input_ids": IDS},
    resnet: {"pixel_values": PICTURE},
    wav2vec2: {"input_values": WAVE},
    whisper: {"input_features": SPECTRUM, "decoder_input_ids": IDS[:, :5]},
}
"""Constructors, each with what its model is asked."""


def save(make: Callable[[], Any], seed: int, folder: Path) -> Path:
    """A model with random weights, spread enough that two of them differ clearly."""
    torch.manual_seed(seed)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def loaded(make: Callable[[], Any], folder: Path) -> Any:
    """The model as transformers loads it, with no tensor missing, left over or of another shape."""
    model, said = type(make()).from_pretrained(folder, output_loading_info=True)
    assert {what: list(names) for what, names in said.items() if names} == {}
    return model.eval()


def answers(model: Any, asked: Mapping[str, Any]) -> list[torch.Tensor]:
    with torch.no_grad():
        found = model(**asked, return_dict=True)
    return [value for value in found.values() if isinstance(value, torch.Tensor)]


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}


@dataclass(frozen=True)
class Pair:
    make: Callable[[], Any]
    asked: Mapping[str, Any]
    a: Path
    b: Path


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    make = request.param
    at = tmp_path_factory.mktemp(make.__name__)
    return Pair(make, MODELS[make], save(make, 1, at / "a"), save(make, 2, at / "b"))


def test_a_copy_is_the_model(pair: Pair, tmp_path: Path) -> None:
    compiled = merge_folders("* = a", tmp_path / "out", a=pair.a)
    stored, made = (load_file(folder / "model.safetensors") for folder in (pair.a, tmp_path / "out"))
    assert made.keys() == stored.keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in made.items())
    assert config_of(tmp_path / "out") == config_of(pair.a)
    assert {d.code for d in compiled.diagnostics} <= {"W0504"}


def test_a_mean_is_the_model_of_the_mean(pair: Pair, tmp_path: Path) -> None:
    merge_folders("* = linear(a, b)", tmp_path / "out", a=pair.a, b=pair.b)
    assert config_of(tmp_path / "out") == config_of(pair.a)
    wanted, other = loaded(pair.make, pair.a), loaded(pair.make, pair.b).state_dict()
    mean = {
        name: ((tensor.double() + other[name].double()) / 2).to(tensor.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in wanted.state_dict().items()
    }
    wanted.load_state_dict(mean)
    made = loaded(pair.make, tmp_path / "out")
    one, two = answers(made, pair.asked), answers(wanted, pair.asked)
    assert one
    for got, right in zip(one, two, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-5)


def test_no_depth_and_no_tie_come_from_a_stack_that_has_no_tensor(tmp_path: Path) -> None:
    compiled = compile_folders("* = a", a=save(idefics3, 1, tmp_path / "a"))
    (model,) = compiled.compilation.recipe.models
    assert model.family.name == "idefics3"
    assert model.aliases == {}
    assert sorted(model.space.depths.values()) == [2, 3]


def test_a_model_without_a_head_has_none_tied_to_its_embedding(tmp_path: Path) -> None:
    """A classifier of a family that ties by default."""
    config = tf.Qwen2Config(**TEXT, num_key_value_heads=1, num_labels=3, tie_word_embeddings=True)
    folder = save(lambda: tf.Qwen2ForSequenceClassification(config), 1, tmp_path / "a")
    (model,) = compile_folders("* = a", a=folder).compilation.recipe.models
    assert not model.family.inferred
    assert model.aliases == {}


def test_a_tied_head_has_the_name_that_the_family_gives_it(tmp_path: Path) -> None:
    """Whisper's head is `proj_out`; under any other name nobody would load it."""
    folder = save(whisper, 1, tmp_path / "a")
    merge_folders("* = a\nhead = 2 * a", tmp_path / "out", a=folder)
    made = load_file(tmp_path / "out" / "model.safetensors")
    embed = "model.decoder.embed_tokens.weight"
    assert torch.equal(made["proj_out.weight"], 2 * made[embed])
    assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["tie_word_embeddings"] is False
    assert torch.equal(loaded(whisper, tmp_path / "out").proj_out.weight, made["proj_out.weight"])


def test_a_copy_verifies(pair: Pair, tmp_path: Path) -> None:
    """Its config.json says what the model's says, even where that is not what its tensors say."""
    merge_folders("* = a", tmp_path / "out", a=pair.a)
    checks = mergec.verify(tmp_path / "out").checks
    assert {c.name: [d.message for d in c.findings] for c in checks if c.findings} == {}
