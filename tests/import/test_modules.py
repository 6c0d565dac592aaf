"""mergekit's `modules`: parts of encoder-decoder and of multimodal models, made small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from mergec.cli.main import main
from safetensors.torch import load_file

TEXT: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def save(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    model.save_pretrained(folder)
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def whisper(seed: int) -> Any:
    torch.manual_seed(seed)
    sizes = {f"{half}_{what}": 2 for half in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = tf.WhisperConfig(
        vocab_size=48,
        num_mel_bins=8,
        d_model=16,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_source_positions=16,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **sizes,
    )
    return tf.WhisperForConditionalGeneration(config)


def llava(seed: int) -> Any:
    torch.manual_seed(seed)
    tower = {
        "model_type": "clip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    config = tf.LlavaConfig(text_config=TEXT | {"model_type": "llama"}, vision_config=tower, image_token_index=40)
    return tf.LlavaForConditionalGeneration(config)


def llama(seed: int) -> Any:
    torch.manual_seed(seed)
    return tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT))


def mean(*weighted: tuple[float, torch.Tensor]) -> torch.Tensor:
    whole: torch.Tensor = sum((w * t.double() for w, t in weighted), torch.zeros(1).double())
    return (whole / sum(w for w, _ in weighted)).float()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, torch.Tensor] | None]:
    """Merges a configuration; None where that is refused."""
    monkeypatch.chdir(tmp_path)

    def merge(config: str) -> dict[str, torch.Tensor] | None:
        Path("r.yml").write_text(config, "utf-8")
        return load_file("out/model.safetensors") if main(["r.yml", "-o", "out", "--force"]) == 0 else None

    return merge


def test_encoder_and_decoder_each_in_its_own_way(run: Callable[[str], Any], tmp_path: Path) -> None:
    a, b = (save(whisper(k), tmp_path / name) for k, name in enumerate("ab"))
    made = run(
        """
modules:
  encoder:
    models: [{model: ./a}, {model: ./b}]
    parameters: {weight: 0.5}
  decoder:
    models: [{model: ./a, parameters: {weight: 0.25}}, {model: ./b, parameters: {weight: 0.75}}]
merge_method: linear
dtype: float32
"""
    )
    assert made is not None
    assert made.keys() == a.keys()
    for name, tensor in made.items():
        share = 0.5 if name.startswith("model.encoder.") else 0.75
        torch.testing.assert_close(tensor, mean((1 - share, a[name]), (share, b[name])), rtol=0, atol=1e-6)


def test_a_language_model_goes_into_the_text_decoder(run: Callable[[str], Any], tmp_path: Path) -> None:
    """Its base is a language model too, and the output has the multimodal model's configuration."""
    vlm, math, base = (
        save(llava(1), tmp_path / "vlm"),
        save(llama(2), tmp_path / "math"),
        save(llama(3), tmp_path / "base"),
    )
    made = run(
        """
modules:
  text_decoder:
    models: [{model: ./vlm}, {model: ./math}]
  vision_tower:
    models: [{model: ./vlm}]
  multi_modal_projector:
    models: [{model: ./vlm}]
merge_method: task_arithmetic
base_model: ./base
parameters: {weight: 0.5}
dtype: float32
"""
    )
    assert made is not None
    assert made.keys() == vlm.keys()
    for name, tensor in made.items():
        wanted, plain = vlm[name], name.removeprefix("language_model.")
        if plain != name:
            one, two, under = vlm[name].double(), math[plain].double(), base[plain].double()
            wanted = (under + 0.5 * (one - under) + 0.5 * (two - under)).float()
        torch.testing.assert_close(tensor, wanted, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert type(tf.AutoModelForImageTextToText.from_pretrained(tmp_path / "out")) is tf.LlavaForConditionalGeneration


def test_what_a_module_lacks_is_told_with_its_name(
    run: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (save(llava(k), tmp_path / name) for k, name in enumerate("ab"))
    config = """
modules:
  text_decoder: {models: [{model: ./a}, {model: ./b}]}
  vision_tower: {models: [{model: ./a}]}
  multi_modal_projector: {models: [{model: ./a}]}
merge_method: slerp
base_model: ./a
parameters: {t: 0.5}
dtype: float32
"""
    assert run(config) is None
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("error")]
    assert errors == [
        f"error[E0706]: the module `{name}`: `slerp` takes exactly 2 inputs, not 1"
        for name in ("vision_tower", "multi_modal_projector")
    ]
    assert "`parameters: {t: 0}` takes the first as it is" in said
    # as that says
    made = run(config.replace("[{model: ./a}]}", "[{model: ./a}, {model: ./b}], parameters: {t: 0}}"))
    assert made is not None
    for name, tensor in made.items():
        if not name.startswith("language_model."):
            torch.testing.assert_close(tensor, a[name], rtol=0, atol=1e-7)
    assert any(not torch.equal(made[name], a[name]) and not torch.equal(made[name], b[name]) for name in made)


def test_a_module_that_there_is_none_of_is_answered_with_the_layers(
    run: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(whisper(1), tmp_path / "a")
    assert (
        run("modules: {text_decoder: {models: [{model: ./a}]}}\nmerge_method: linear\nparameters: {weight: 1}") is None
    )
    said = capsys.readouterr().err
    assert "E0710" in said
    assert all(f"`{stack}.layers`" in said for stack in ("encoder", "decoder"))


def test_the_parts_of_a_mixture_are_named_for_what_they_are(
    run: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("base_model: ./a\nexperts:\n- {source_model: ./a, positive_prompts: [code]}\ngate_mode: hidden") is None
    assert "mergekit-moe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "meant"),
    [("merge_methd: ties", "merge_method"), ("merge_method: tie", "ties"), ("merge_method: liner", "linear")],
)
def test_slips_are_answered_with_the_word_that_was_meant(
    line: str, meant: str, run: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(llama(1), tmp_path / "a")
    save(llama(2), tmp_path / "b")
    assert run(f"models: [{{model: ./a}}, {{model: ./b}}]\n{line}\nbase_model: ./a\nparameters: {{weight: 1}}") is None
    said = capsys.readouterr().err
    assert f"did you mean `{meant}`" in said
