"""Adapters that can't be applied, or can't be believed: each has its code, and says which file and
which key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import lora_adapters
import mergec
import pytest
import torch
from mergec.compiler.checkpoint.adapter_config import fits
from mergec.grammar.diagnostic import Diagnostic, Exit
from safetensors.torch import load_file

Make = Callable[..., Path]
CONFIG: dict[str, Any] = {"r": 4, "lora_alpha": 8}
FILE = "adapter_model.safetensors"
MODULE = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def adapter(checkpoint: Make, tmp_path: Path) -> Path:
    tensors = lora_adapters.factors(checkpoints.load(checkpoint("llama")), [MODULE])
    return lora_adapters.write(tmp_path / "adapter", tensors, **CONFIG)


def refused(base: Path, adapter: Path, value: str = "base + extra", lets: str = "") -> tuple[Diagnostic, Exit]:
    recipe = f'let base = model("{base}")\nlet extra = lora("{adapter}")\n{lets}\n* = {value}'
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(recipe, device="cpu")
    assert len(caught.value.diagnostics) == 1, caught.value.diagnostics
    return caught.value.diagnostics[0], caught.value.exit


def edit(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_an_adapter(name: str, adapter: Path, checkpoint: Make) -> None:
    (adapter / name).unlink()
    found, status = refused(checkpoint("llama"), adapter)
    assert (found.code, status) == ("E0450", Exit.RECIPE)
    assert f"`{name}`" in found.message


def test_a_pickled_adapter(adapter: Path, checkpoint: Make) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert refused(checkpoint("llama"), adapter)[0].code == "E0405"


def test_an_adapter_named_as_a_model(adapter: Path) -> None:
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(f'let base = model("{adapter}")\n* = base', device="cpu")
    found = caught.value.diagnostics[0]
    assert found.code == "E0406"
    assert "lora(…)" in found.help[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", "8"),
        ("r", 0),
        ("r", True),
        ("r", 2.5),
        ("lora_alpha", None),
        ("lora_alpha", float("inf")),
        ("use_rslora", 1),
        ("use_dora", "yes"),
        ("fan_in_fan_out", "false"),
        ("lora_bias", 0),
        ("bias", "some"),
        ("rank_pattern", [1]),
        ("rank_pattern", {"q_proj": "4"}),
        ("alpha_pattern", {"q_proj": [1]}),
        ("rank_pattern", {"(a+)+b": 4}),
        ("rank_pattern", {"(": 4}),
        ("rank_pattern", {".*.*.*.*.*q": 4}),
        ("modules_to_save", "lm_head"),
        ("target_modules", {"q_proj": 1}),
        ("peft_type", 3),
        ("init_lora_weights", 3),
    ],
)
def test_a_key_of_the_wrong_kind(key: str, value: Any, adapter: Path, checkpoint: Make) -> None:
    edit(adapter, **{key: value})
    found, status = refused(checkpoint("llama"), adapter)
    assert (found.code, status) == ("E0451", Exit.INPUT)
    assert f"`{key}`" in found.message
    assert found.file == str(adapter / "adapter_config.json")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"r": 4', "\xff", '{"r":' + "[" * 9999])
def test_a_config_that_is_no_json(text: str, adapter: Path, checkpoint: Make) -> None:
    (adapter / "adapter_config.json").write_bytes(text.encode("latin-1"))
    assert refused(checkpoint("llama"), adapter)[0].code == "E0451"


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": "IA3"},
        {"init_lora_weights": "pissa_niter_4"},
        {"use_qalora": True},
        {"target_parameters": ["experts.gate_up_proj"]},
        {"layer_replication": [[0, 4], [2, 5]]},
        {"trainable_token_indices": [1]},
    ],
)
def test_another_kind(changes: dict[str, Any], adapter: Path, checkpoint: Make) -> None:
    edit(adapter, **changes)
    assert refused(checkpoint("llama"), adapter)[0].code == "E0452"


def test_a_tensor_of_another_kind(checkpoint: Make, tmp_path: Path) -> None:
    tensors = {f"{MODULE}.lora_C.weight": torch.ones(4, 4)}
    folder = lora_adapters.write(tmp_path / "adapter", tensors, **CONFIG)
    assert refused(checkpoint("llama"), folder)[0].code == "E0452"


@pytest.mark.parametrize(
    "tensors",
    [
        {f"{MODULE}.lora_A.weight": torch.ones(4, 32)},
        {f"{MODULE}.lora_A.weight": torch.ones(4, 32), f"{MODULE}.lora_B.weight": torch.ones(32, 2)},
        {f"{MODULE}.lora_A.weight": torch.ones(2, 32), f"{MODULE}.lora_B.weight": torch.ones(32, 2)},
        {f"{MODULE}.lora_A.weight": torch.ones(4, 30), f"{MODULE}.lora_B.weight": torch.ones(32, 4)},
        {f"{MODULE}.lora_A.weight": torch.ones(4, 32), f"{MODULE}.lora_B.weight": torch.ones(31, 4)},
        {f"{MODULE}.lora_A.weight": torch.ones(4, 32), f"{MODULE}.lora_B.weight": torch.ones(4)},
        {f"{MODULE}.lora_A.weight": torch.ones(4, 0), f"{MODULE}.lora_B.weight": torch.ones(32, 4)},
        {f"{MODULE}.lora_A.weight": torch.ones(4, 32).int(), f"{MODULE}.lora_B.weight": torch.ones(32, 4)},
        {
            "model.layers.9.mlp.up_proj.lora_A.weight": torch.ones(4, 32),
            "model.layers.9.mlp.up_proj.lora_B.weight": torch.ones(48, 4),
        },
        {"score.weight": torch.ones(2, 32)},
        {"model.norm.weight": torch.ones(31)},
        {f"{MODULE}.bias": torch.ones(32)},
    ],
)
def test_an_adapter_that_does_not_fit(tensors: lora_adapters.Tensors, checkpoint: Make, tmp_path: Path) -> None:
    folder = lora_adapters.write(tmp_path / "adapter", tensors, **CONFIG)
    found, _ = refused(checkpoint("llama"), folder)
    assert found.code == "E0453"


def test_what_does_more_than_add_is_no_sum(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("llama")
    folder = lora_adapters.write(tmp_path / "adapter", {"model.norm.weight": torch.ones(32)}, **CONFIG)
    found, _ = refused(base, folder, "base + 0.5*extra")
    assert (found.code, "replaces `model.norm.weight`" in found.message) == ("E0454", True)
    assert refused(base, folder, "base", "embed = extra.layers[0]")[0].code == "E0454"


def test_an_adapter_of_which_nothing_is_used(adapter: Path, checkpoint: Make) -> None:
    recipe = f'let base = model("{checkpoint("llama")}")\nlet extra = lora("{adapter}")\n* = base'
    compiled = mergec.compile(recipe, device="cpu")
    assert [d.code for d in compiled.diagnostics] == ["W0502"]


def test_rows_that_move(checkpoint: Make, tmp_path: Path) -> None:
    """Embeddings that an adapter changes stay where they are, or the recipe is refused."""
    base = checkpoints.load(checkpoint("llama"))
    folders = [tmp_path / "one", tmp_path / "two"]
    for k, folder in enumerate(folders):
        checkpoints.finetune(checkpoint("llama"), folder, seed=k)
        vocabulary = {f"t{n}": n for n in range(64 + k)}
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}), "utf-8")
    weights = checkpoints.load(folders[1])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = torch.cat([weights[name], torch.ones(1, 32)])
    checkpoints.store(weights, folders[1])
    extra = lora_adapters.write(tmp_path / "adapter", {"lm_head.weight": base["lm_head.weight"]}, **CONFIG)
    text = f'let base = model("{folders[0]}")\nlet b = model("{folders[1]}")\nlet extra = lora("{extra}")\n'
    mergec.compile(text + "output(tokenizer=base)\n* = linear(base + extra, b)", device="cpu")
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile(text + "output(tokenizer=union(base, b))\n* = linear(base + extra, b)", device="cpu")
    assert [d.code for d in caught.value.diagnostics] == ["E0455"]


@pytest.mark.parametrize(
    ("key", "module", "expected"),
    [
        ("q_proj", "a.q_proj", True),
        ("q_proj", "a.xq_proj", False),
        ("a.q_proj$", "b.a.q_proj", True),
        ("^a.q_proj", "b.a.q_proj", False),
        ("^a.q_proj", "a.q_proj", True),
        (r"layers\.\d+\.mlp", "m.layers.12.mlp", True),
        ("(q|k)_proj", "m.k_proj", True),
        ("mlp.*", "m.mlp.up", True),
    ],
)
def test_names_in_patterns(key: str, module: str, expected: bool) -> None:
    assert fits(key, module) is expected


def test_names_of_which_the_prefix_differs(adapter: Path, checkpoint: Make, tmp_path: Path) -> None:
    """As between versions of transformers: the help's renaming brings the names together."""
    base = checkpoint("llama")
    tensors = {k.removeprefix(lora_adapters.PREFIX): t for k, t in load_file(adapter / FILE).items()}
    named = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in tensors.items()}
    lora_adapters.write(adapter, named, **CONFIG)
    found, _ = refused(base, adapter)
    assert found.code == "E0453"
    assert f"`{MODULE}.weight`" in found.notes[1]
    rename = found.help[0].split("`")[1]
    merged = f'let base = model("{base}", {rename})\n* = base + lora("{adapter}")'
    mergec.compile(merged, device="cpu").run(tmp_path / "out")
    wanted = lora_adapters.applied(checkpoints.load(base), tensors, CONFIG)[f"{MODULE}.weight"]
    made = checkpoints.load(tmp_path / "out")[f"{MODULE.replace('model.', 'model.language_model.', 1)}.weight"]
    torch.testing.assert_close(made.double(), torch.from_numpy(wanted), rtol=2e-6, atol=1e-6)


def test_a_head_that_the_model_lacks(adapter: Path, checkpoint: Make) -> None:
    lora_adapters.write(adapter, {"score.weight": torch.ones(3, 32)}, **CONFIG)
    found, _ = refused(checkpoint("llama"), adapter)
    assert found.code == "E0453"
    assert "`score.weight`" in found.notes[0]
    assert "merge_and_unload" in found.help[0]


def test_more_tokens_than_the_model_has(adapter: Path, checkpoint: Make) -> None:
    lora_adapters.write(adapter, {"model.embed_tokens.weight": torch.ones(66, 32)}, **CONFIG)
    found, _ = refused(checkpoint("llama"), adapter)
    assert found.code == "E0453"
    assert "tokenizer" in found.help[0]
