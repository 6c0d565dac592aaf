"""Merged modules and pipelines of diffusers load with it, and hold the float64 mean."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import mergec
import pytest
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from mergec.compiler.checkpoint.image_models import SINGLE_FILES

pytestmark = pytest.mark.filterwarnings("ignore")
COMPONENTS = ("unet", "vae", "text_encoder")


def unet(seed: int) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip


def pipeline(folder: Path, seed: int, variant: str | None = None, dtype: torch.dtype = torch.float32) -> Path:
    """A Stable Diffusion of the smallest kind, as diffusers saves it."""
    torch.manual_seed(seed + 10)
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), sample_size=16,
    )  # fmt: skip
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=99, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip
    words = folder.parent / f"{folder.name}-words"
    words.mkdir()
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *"abcdefgh", *(f"{c}</w>" for c in "abcdefgh")]
    (words / "vocab.json").write_text(json.dumps({w: k for k, w in enumerate(vocabulary)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    made = StableDiffusionPipeline(
        vae=vae, text_encoder=text, unet=unet(seed), safety_checker=None,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        tokenizer=transformers.CLIPTokenizer(str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=16),
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    made.to(dtype).save_pretrained(folder, variant=variant, max_shard_size="20KB" if variant is None else "10GB")
    return folder


def state(component: torch.nn.Module) -> dict[str, torch.Tensor]:
    return component.state_dict()


def assert_mean(found: torch.nn.Module, a: torch.nn.Module, b: torch.nn.Module, share: float = 0.5) -> None:
    one, two, made = state(a), state(b), state(found)
    assert made.keys() == one.keys()
    for name, tensor in made.items():
        if tensor.dtype.is_floating_point:
            wanted = (1 - share) * one[name].double() + share * two[name].double()
            torch.testing.assert_close(tensor.double(), wanted, atol=2e-6, rtol=0)


def lets(a: Path, b: Path, more: str = "") -> str:
    return f'let a = model("{a}"{more})\nlet b = model("{b}"{more})\n'


def test_a_module_keeps_how_its_files_are_called(tmp_path: Path) -> None:
    a, b = (pipeline(tmp_path / name, seed) for seed, name in enumerate("ab"))
    out = tmp_path / "out"
    recipe = lets(a, b, ', subfolder="unet"') + 'output(shard_size="20KB")\n* = linear(a, b, weight=[0.25, 0.75])'
    mergec.compile(recipe, device="cpu").run(out)
    assert (out / "diffusion_pytorch_model.safetensors.index.json").exists()
    assert not list(out.glob("model*"))
    made = UNet2DConditionModel.from_pretrained(out)
    assert_mean(made, unet(0), unet(1), 0.75)
    assert mergec.verify(out, rerun="all").ok
    whole = tmp_path / "whole"
    mergec.compile(lets(a, b, ', subfolder="unet"') + "* = linear(a, b)", device="cpu").run(whole)
    assert [f.name for f in whole.glob("*.safetensors")] == ["diffusion_pytorch_model.safetensors"]
    assert_mean(UNet2DConditionModel.from_pretrained(whole), unet(0), unet(1))


@pytest.mark.parametrize("sharded", [True, False])
def test_a_whole_pipeline(sharded: bool, tmp_path: Path) -> None:
    a, b = (pipeline(tmp_path / name, seed) for seed, name in enumerate("ab"))
    out = tmp_path / "out"
    size = 'output(shard_size="20KB")\n' if sharded else ""
    compiled = mergec.compile(lets(a, b) + size + "* = linear(a, b)", device="cpu")
    assert not compiled.diagnostics
    compiled.run(out)
    assert (out / "unet/diffusion_pytorch_model.safetensors.index.json").exists() is sharded
    made, one, two = (DiffusionPipeline.from_pretrained(path) for path in (out, a, b))
    for name in COMPONENTS:
        assert_mean(getattr(made, name), getattr(one, name), getattr(two, name))
    assert made.tokenizer("a b")["input_ids"] == one.tokenizer("a b")["input_ids"]
    picture = made("a b", num_inference_steps=1, output_type="np", height=16, width=16).images
    assert picture.shape == (1, 8, 8, 3) or picture.ndim == 4
    checked = mergec.verify(out, rerun="all")
    assert checked.ok, str(checked)


def test_a_component_by_its_place(tmp_path: Path) -> None:
    a, b = (pipeline(tmp_path / name, seed) for seed, name in enumerate("ab"))
    out = tmp_path / "out"
    recipe = lets(a, b) + (
        "* = a\nunet = linear(a, b)\ntext_encoder.encoder.layers[1] = b\n"
        "vae = linear(a.vae, b.vae, weight=[0.25, 0.75])"
    )
    mergec.compile(recipe, device="cpu").run(out)
    made, one, two = (DiffusionPipeline.from_pretrained(path) for path in (out, a, b))
    assert_mean(made.unet, one.unet, two.unet)
    assert_mean(made.vae, one.vae, two.vae, 0.75)
    for name, tensor in state(made.text_encoder).items():
        wanted = two if "layers.1." in name else one
        assert torch.equal(tensor, state(wanted.text_encoder)[name])


def test_a_variant_that_is_asked_for(tmp_path: Path) -> None:
    a, b = (pipeline(tmp_path / name, seed, "fp16", torch.float16) for seed, name in enumerate("ab"))
    for folder, seed in ((a, 5), (b, 6)):
        unet(seed).save_pretrained(folder / "unet")
    out = tmp_path / "out"
    more = ', subfolder="unet", variant="fp16"'
    mergec.compile(lets(a, b, more) + "* = linear(a, b)", device="cpu").run(out)
    made = UNet2DConditionModel.from_pretrained(out, variant="fp16")
    one, two = unet(0).half(), unet(1).half()
    for name, tensor in state(made).items():
        wanted = (state(one)[name].double() + state(two)[name].double()) / 2
        torch.testing.assert_close(tensor.double(), wanted, atol=2e-3, rtol=0)
    plain = tmp_path / "plain"
    mergec.compile(lets(a, b, ', subfolder="unet"') + "* = linear(a, b)", device="cpu").run(plain)
    assert_mean(UNet2DConditionModel.from_pretrained(plain), unet(5), unet(6))


def test_a_pipeline_of_a_variant(tmp_path: Path) -> None:
    """Components without the variant are the plain ones, as diffusers loads them."""
    a, b = (pipeline(tmp_path / name, seed, "fp16", torch.float16) for seed, name in enumerate("ab"))
    for folder in (a, b):
        (folder / "vae/diffusion_pytorch_model.fp16.safetensors").rename(
            folder / "vae/diffusion_pytorch_model.safetensors"
        )
    out = tmp_path / "out"
    mergec.compile(lets(a, b, ', variant="fp16"') + "* = linear(a, b)", device="cpu").run(out)
    made, one, two = (
        DiffusionPipeline.from_pretrained(path, variant="fp16", torch_dtype=torch.float16) for path in (out, a, b)
    )
    for name in COMPONENTS:
        for key, tensor in state(getattr(made, name)).items():
            if tensor.dtype.is_floating_point:
                wanted = (state(getattr(one, name))[key].double() + state(getattr(two, name))[key].double()) / 2
                torch.testing.assert_close(tensor.double(), wanted, atol=2e-3, rtol=0)


def test_the_dtype_of_an_encoder_follows(tmp_path: Path) -> None:
    a, b = (pipeline(tmp_path / name, seed) for seed, name in enumerate("ab"))
    mergec.compile(lets(a, b) + 'output(dtype="bfloat16")\n* = linear(a, b)', device="cpu").run(tmp_path / "out")
    config = json.loads((tmp_path / "out/text_encoder/config.json").read_text())
    assert {config.get("dtype"), config.get("torch_dtype")} <= {"bfloat16", None}
    assert DiffusionPipeline.from_pretrained(tmp_path / "out", torch_dtype=torch.bfloat16)


def flux(folder: Path, seed: int) -> Path:
    """A Flux of the smallest kind: two encoders of texts, one of them a T5 with a tie, and a
    transformer."""
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    clip = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=99, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
        )
    )
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=99, d_model=32, d_ff=24, d_kv=8, num_layers=2, num_heads=2)
    )
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=1, block_out_channels=(4,), norm_num_groups=1,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), sample_size=16,
        use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, text_encoder=clip, tokenizer=None, text_encoder_2=t5,
        tokenizer_2=None, transformer=transformer,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_pipeline_with_two_encoders(tmp_path: Path) -> None:
    a, b = (flux(tmp_path / name, seed) for seed, name in enumerate("ab"))
    compiled = mergec.compile(lets(a, b) + "* = slerp(a, b, t=0)\ntext_encoder_2 = linear(a, b)", device="cpu")
    assert not compiled.diagnostics
    compiled.run(tmp_path / "out")
    none = {"tokenizer": None, "tokenizer_2": None}
    made, one, two = (DiffusionPipeline.from_pretrained(path, **none) for path in (tmp_path / "out", a, b))
    assert_mean(made.text_encoder_2, one.text_encoder_2, two.text_encoder_2)
    for name in ("transformer", "text_encoder", "vae"):
        assert_mean(getattr(made, name), getattr(one, name), getattr(two, name), 0)
    assert mergec.verify(tmp_path / "out", rerun="all").ok


def test_the_class_that_converts_a_single_file_reads_such() -> None:
    for _, _, reader in SINGLE_FILES:
        assert callable(getattr(diffusers, reader).from_single_file)
