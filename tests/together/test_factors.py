"""Factors of adapters in each tool's naming: copied together or refused, and named where `lora(…)`
is given them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mergec
import numpy as np
import pytest
from mergec.compiler.checkpoint.adapter_formats import factors_among
from mergec.compiler.checkpoint.catalog import CatalogError
from mergec.grammar.diagnostic import MergecError
from mergec.runtime.catalog.local import LocalCatalog
from safetensors.numpy import save_file

X = "lora_unet_down_blocks_0_attentions_0_to_q"
TOOLS: dict[str, tuple[str, list[str]]] = {
    "kohya": ("kohya", [f"{X}.lora_down.weight", f"{X}.lora_up.weight", f"{X}.alpha"]),
    "kohya, convolutions": ("kohya", [f"{X}.lora_down.weight", f"{X}.lora_mid.weight", f"{X}.lora_up.weight"]),
    "kohya, DoRA": ("kohya", [f"{X}.lora_down.weight", f"{X}.lora_up.weight", f"{X}.dora_scale"]),
    "LoHa": ("LyCORIS", [f"{X}.hada_w1_a", f"{X}.hada_w1_b", f"{X}.hada_w2_a", f"{X}.hada_w2_b", f"{X}.alpha"]),
    "LoKr": ("LyCORIS", [f"{X}.lokr_w1", f"{X}.lokr_w2_a", f"{X}.lokr_w2_b", f"{X}.alpha"]),
    "OFT": ("LyCORIS", [f"{X}.oft_blocks"]),
    "diffusers": ("diffusers", ["unet.a.attn1.to_q.lora.down.weight", "unet.a.attn1.to_q.lora.up.weight"]),
    "diffusers, processors": ("diffusers", ["a.processor.to_q_lora.down.weight", "a.processor.to_q_lora.up.weight"]),
    "diffusers, layers": ("diffusers", ["te.q.lora_linear_layer.down.weight", "te.q.lora_linear_layer.up.weight"]),
    "XLabs": ("diffusers", ["b.0.processor.qkv_lora1.down.weight", "b.0.processor.qkv_lora1.up.weight"]),
    "PEFT's names": ("PEFT's names", ["transformer.a.to_q.lora_A.weight", "transformer.a.to_q.lora_B.weight"]),
    "MLX": ("MLX", ["model.layers.0.self_attn.q_proj.lora_a", "model.layers.0.self_attn.q_proj.lora_b"]),
    "kohya, bare": ("kohya", [f"{X}.lora_down", f"{X}.lora_up", f"{X}.lora_down.bias"]),
    "a module alone": ("kohya", ["lora_down.weight", "lora_up.weight", "alpha"]),
    "MLX, named": ("MLX", ["a.q.lora_a.default.weight", "a.q.lora_b.default.weight"]),
    "LoKr of Tucker's": ("LyCORIS", [f"{X}.lokr_w1", f"{X}.lokr_w2", f"{X}.lokr_t1"]),
    "loralib": ("loralib", ["model.layers.0.self_attn.q_proj.lora_A", "model.layers.0.self_attn.q_proj.lora_B"]),
}  # fmt: skip
PEFT: dict[str, list[str]] = {
    "LoRA": ["base_model.model.a.q.lora_A.weight", "base_model.model.a.q.lora_B.weight"],
    "named": ["base_model.model.a.q.lora_A.style.weight", "base_model.model.a.q.lora_B.style.weight"],
    "embeddings": ["a.e.lora_embedding_A.default", "a.e.lora_embedding_B.default"],
    "DoRA": ["a.q.lora_A.default.weight", "a.q.lora_B.default.weight", "a.q.lora_magnitude_vector.default.weight"],
    "wrapped": ["a.q.base_layer.weight", "a.q.lora_A.default.weight", "a.q.lora_B.default.weight"],
    "old names": ["a.q.weight", "a.q.lora_A.default.weight", "a.q.lora_B.default.weight"],
    "IA3": ["a.q.base_layer.weight", "a.q.ia3_l.default"],
    "VeRA": ["a.q.base_layer.weight", "a.q.vera_lambda_b.default", "a.q.vera_lambda_d.default"],
    "OFT": ["a.q.base_layer.weight", "a.q.oft_R.default.weight"],
    "AdaLoRA": ["a.q.lora_A.default", "a.q.lora_B.default", "a.q.lora_E.default"],
}


def spec(names: list[str]) -> dict[str, Any]:
    tensors = dict.fromkeys(names, ("F32", (4, 4)))
    return {"tensors": tensors | {"norm.weight": ("F32", (4,))}}


def codes(recipe: str, names: list[str]) -> list[str]:
    lets = 'let a = model("a")\nlet b = model("b")\n'
    try:
        mergec.compile(lets + recipe, catalog=mergec.MemoryCatalog({"a": spec(names), "b": spec(names)}), device="cpu")
    except MergecError as error:
        return [d.code for d in error.diagnostics if d.code.startswith("E")]
    return []


@pytest.mark.parametrize("names", [names for _, names in TOOLS.values()] + list(PEFT.values()))
def test_factors_are_copied_together_or_refused(names: list[str]) -> None:
    for value in ("linear(a, b)", "slerp(a, b, t=0.5)", "a + b"):
        assert set(codes(f"* = {value}", names)) == {"E0458"}
    for name in names:
        assert codes(f'* = a\n"{name}" = 0.5 * b', names) == ["E0458"]
        assert codes(f'* = a\n"{name}" = b', names) == (["E0457"] if len(names) > 1 else [])
    assert codes("* = a", names) == []
    assert codes('output(dtype="float16")\n* = a', names) == []
    assert codes('* = a\n"norm.weight" = linear(a, b)', names) == []


PLAIN = [
    # what models of these names learn, and no adapters
    ["rwkv.blocks.0.att.w_lora.lora.0.weight", "rwkv.blocks.0.att.w_lora.lora.2.weight"],
    ["snake.alpha", "snake.weight"],
    ["model.layers.0.self_attn.q_a_proj.weight", "model.layers.0.self_attn.q_b_proj.weight"],
    ["explorations.up.weight", "floral.down.weight"],
    ["a.base_layer.weight", "a.base_layer.bias"],
    ["encoder.loft_size.weight"],
]


@pytest.mark.parametrize("names", PLAIN)
def test_models_without_adapters(names: list[str]) -> None:
    assert codes("* = linear(a, b)", names) == []


# --- lora(…) of such a file


def refusal(source: Path) -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        LocalCatalog().adapter(str(source), revision=None, subfolder=None, near="r.mrg")
    return caught.value


def write(path: Path, names: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.zeros((4, 4), np.float32) for name in names}, path)
    return path


@pytest.mark.parametrize("tool", TOOLS)
def test_lora_names_the_tool_whose_adapter_it_was_given(tool: str, tmp_path: Path) -> None:
    said, names = TOOLS[tool]
    file = write(tmp_path / "pytorch_lora_weights.safetensors", names)
    for source in (file, tmp_path):
        error = refusal(source)
        assert (error.code, said in error.message) == ("E0459", True), error.message
        assert error.help


def test_lora_of_a_file_of_pefts(tmp_path: Path) -> None:
    file = write(tmp_path / "adapter_model.safetensors", PEFT["LoRA"])
    assert refusal(file).help == ("name a folder with `adapter_config.json`",)
    assert refusal(tmp_path).code == "E0450"
    (tmp_path / "adapter_config.json").write_text("{}")
    assert (refusal(file).code, refusal(file).help) == (
        "E0450",
        ("name its folder, in which `adapter_config.json` is",),
    )


def test_lora_of_what_is_no_adapter(tmp_path: Path) -> None:
    assert refusal(write(tmp_path / "model.safetensors", ["a.weight"])).code == "E0450"
    (tmp_path / "notes.txt").write_text("")
    assert refusal(tmp_path / "notes.txt").code == "E0450"


def test_a_folder_of_mlx_has_a_config_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "adapters.safetensors", TOOLS["MLX"][1])
    (tmp_path / "adapter_config.json").write_text('{"fine_tune_type": "lora"}')
    assert refusal(tmp_path).code == "E0459"


def test_many_names_are_looked_through_at_once() -> None:
    """Names are counted in hundreds of thousands: what has no factor costs one search."""
    assert factors_among(f"model.layers.{n}.mlp.up_proj.weight" for n in range(200_000)) is None
