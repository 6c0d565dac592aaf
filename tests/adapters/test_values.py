"""`base + lora(…)` against the formulas, computed whole and in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import lora_adapters
import mergec
import numpy as np
import pytest
import torch
from lora_adapters import normal
from mergec.compiler.plan.plan import Pass, Product
from mergec.compiler.plan.prune import prune
from mergec.runtime.native import backend
from merging import merge_folders

Make = Callable[..., Path]
LAYERS = [f"model.layers.{k}" for k in range(checkpoints.LAYERS)]
ATTENTION = [f"{layer}.self_attn.{x}_proj" for layer in LAYERS for x in "qkvo"]
MLP = [f"{layer}.mlp.{x}_proj" for layer in LAYERS for x in ("gate", "up", "down")]


def check(
    base: Path, tmp_path: Path, tensors: lora_adapters.Tensors, config: dict[str, Any], recipe: str = "* = base + extra"
) -> mergec.Compiled:
    """Merges an adapter into a model and compares with the reference."""
    folder = lora_adapters.write(tmp_path / "adapter", tensors, **config)
    compiled = merge_folders(f'let extra = lora("{folder}")\n{recipe}', tmp_path / "out", base=base)
    made, wanted = checkpoints.load(tmp_path / "out"), lora_adapters.applied(checkpoints.load(base), tensors, config)
    assert made.keys() <= wanted.keys()
    for name, tensor in made.items():
        np.testing.assert_allclose(tensor.double().numpy(), wanted[name], rtol=2e-6, atol=1e-6, err_msg=name)
    assert checkpoints.logits(tmp_path / "out").clean
    return compiled


def test_scale_is_alpha_over_rank(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("llama")
    tensors = lora_adapters.factors(checkpoints.load(base), [*ATTENTION, *MLP])
    compiled = check(base, tmp_path, tensors, {"r": 4, "lora_alpha": 16})
    copied = {t.name for t in compiled.plan.tensors} - {f"{m}.weight" for m in (*ATTENTION, *MLP)}
    made, old = checkpoints.load(tmp_path / "out"), checkpoints.load(base)
    assert len(copied) == 11
    assert all(torch.equal(made[name], old[name]) for name in copied)


def test_rank_stabilised(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("llama")
    tensors = lora_adapters.factors(checkpoints.load(base), ATTENTION)
    check(base, tmp_path, tensors, {"r": 4, "lora_alpha": 5.5, "use_rslora": True})


def test_ranks_and_alphas_of_single_modules(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("llama")
    old = checkpoints.load(base)
    tensors = {**lora_adapters.factors(old, ATTENTION), **lora_adapters.factors(old, MLP, 2)}
    config = {
        "r": 4,
        "lora_alpha": 4,
        "rank_pattern": {"mlp.*_proj": 2},
        "alpha_pattern": {"q_proj": 1, r"layers\.[12]\.self_attn.v_proj": 32, "^model.layers.0.mlp.up_proj": 3},
    }
    check(base, tmp_path, tensors, config)


def test_inputs_along_the_first_axis(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("gpt2")
    modules = [f"transformer.h.{k}.{m}" for k in range(4) for m in ("attn.c_attn", "attn.c_proj", "mlp.c_fc")]
    tensors = lora_adapters.factors(checkpoints.load(base), modules, turned=True)
    check(base, tmp_path, tensors, {"r": 4, "lora_alpha": 8, "fan_in_fan_out": True})


def test_embeddings_and_biases_and_whole_tensors(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("phi")
    old = checkpoints.load(base)
    modules = [f"{layer}.self_attn.{x}" for layer in LAYERS for x in ("q_proj", "dense")]
    tensors = lora_adapters.factors(old, modules)
    for k, module in enumerate(modules):
        tensors[f"{module}.lora_B.bias"] = normal(*old[f"{module}.bias"].shape, seed=k)
    vocabulary, width = old["model.embed_tokens.weight"].shape
    tensors["model.embed_tokens.lora_embedding_A"] = normal(4, vocabulary, seed=12) * 0.1
    tensors["model.embed_tokens.lora_embedding_B"] = normal(width, 4, seed=13) * 0.1
    tensors["model.embed_tokens.base_layer.weight"] = old["model.embed_tokens.weight"] * 1.5
    tensors["lm_head.weight"] = old["lm_head.weight"] + 1
    tensors["lm_head.bias"] = old["lm_head.bias"] - 1
    tensors["model.final_layernorm.modules_to_save.weight"] = old["model.final_layernorm.weight"] * 2
    check(base, tmp_path, tensors, {"r": 4, "lora_alpha": 8, "lora_bias": True, "modules_to_save": ["lm_head"]})
    assert torch.equal(checkpoints.load(tmp_path / "out")["lm_head.weight"], tensors["lm_head.weight"])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_magnitudes(family: str, checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint(family)
    old, turned = checkpoints.load(base), family == "gpt2"
    modules = [f"transformer.h.{k}.attn.c_attn" for k in range(4)] if turned else [*ATTENTION, *MLP]
    tensors = lora_adapters.factors(old, modules, turned=turned)
    for k, module in enumerate(modules):
        outputs = old[f"{module}.weight"].shape[1 if turned else 0]
        tensors[f"{module}.lora_magnitude_vector"] = normal(outputs, seed=k).abs() + 0.5
    embed = "transformer.wte" if turned else "model.embed_tokens"
    vocabulary, width = old[f"{embed}.weight"].shape
    tensors[f"{embed}.lora_embedding_A"] = normal(4, vocabulary, seed=15) * 0.1
    tensors[f"{embed}.lora_embedding_B"] = normal(width, 4, seed=16) * 0.1
    tensors[f"{embed}.lora_magnitude_vector"] = normal(width, seed=17).abs() + 0.5
    config = {"r": 4, "lora_alpha": 8, "use_dora": True, "fan_in_fan_out": turned}
    # GPT-2's head is its embedding, of which the adapter changes the latter alone
    check(base, tmp_path, tensors, config, "* = base + extra" + "\nhead = tie(embed)" * turned)


def test_an_adapter_for_another_layout(checkpoint: Make, tmp_path: Path) -> None:
    """One trained on Phi-2 before its port, with q, k and v in one module; the model in both
    layouts."""
    old, new = checkpoint("phi-old"), checkpoint("phi")
    before = checkpoints.load(old)
    modules = [f"transformer.h.{k}.mixer.{m}" for k in range(4) for m in ("Wqkv", "out_proj")]
    tensors = lora_adapters.factors(before, modules)
    tensors["lm_head.ln.weight"] = before["lm_head.ln.weight"] * 2
    module = "transformer.h.1.mixer.Wqkv"
    tensors[f"{module}.lora_B.bias"] = normal(*before[f"{module}.bias"].shape, seed=18)
    config = {"r": 4, "lora_alpha": 8}
    folder = lora_adapters.write(tmp_path / "adapter", tensors, **config)
    wanted = lora_adapters.applied(before, tensors, config)
    for k, base in enumerate((old, new)):
        merge_folders(f'* = base + lora("{folder}")', tmp_path / f"out{k}", base=base)
    made, other = checkpoints.load(tmp_path / "out0"), checkpoints.load(tmp_path / "out1")
    for name, tensor in made.items():
        np.testing.assert_allclose(tensor.double().numpy(), wanted[name], rtol=2e-6, atol=1e-6, err_msg=name)
    for k in range(4):
        parts = [other[f"model.layers.{k}.self_attn.{x}_proj.weight"] for x in "qkv"]
        assert torch.equal(torch.cat(parts), made[f"transformer.h.{k}.mixer.Wqkv.weight"])


# --- in other expressions ------------------------------------------------------------------------


def test_an_adapted_model_is_a_model(checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    """In a method, at a place, and twice; nothing lies in between."""
    base, a = checkpoint("llama"), finetuned("llama", 1)
    old, config = checkpoints.load(base), {"r": 4, "lora_alpha": 8}
    one, two = (lora_adapters.factors(old, modules, seed=s) for s, modules in ((1, ATTENTION), (2, MLP)))
    for name, tensors in (("one", one), ("two", two)):
        lora_adapters.write(tmp_path / name, tensors, **config)
    recipe = f"""
    let both = base + lora("{tmp_path}/one") + lora("{tmp_path}/two")
    * = task_arithmetic(both, a, weight=[0.5, 0.25])
    layers[0] = both.layers[3]
    """
    merge_folders(recipe, tmp_path / "out", base=base, a=a)
    first = {k: torch.from_numpy(v) for k, v in lora_adapters.applied(old, one, config).items()}
    both, other = lora_adapters.applied(first, two, config), checkpoints.load(a)
    for name, tensor in checkpoints.load(tmp_path / "out").items():
        wide = old[name].double().numpy()
        wanted = wide + 0.5 * (both[name] - wide) + 0.25 * (other[name].double().numpy() - wide)
        if ".layers.0." in name:
            wanted = both[name.replace(".0.", ".3.")]
        np.testing.assert_allclose(tensor.double().numpy(), wanted, rtol=2e-6, atol=1e-6, err_msg=name)


def test_what_an_adapter_adds_is_a_region(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("llama")
    old, config = checkpoints.load(base), {"r": 4, "lora_alpha": 8}
    folder = lora_adapters.write(tmp_path / "adapter", lora_adapters.factors(old, ATTENTION), **config)
    recipe = f'* = base - 0.5*lora("{folder}")'
    merge_folders(recipe, tmp_path / "out", base=base)
    full = lora_adapters.applied(old, lora_adapters.factors(old, ATTENTION), config)
    for name, tensor in checkpoints.load(tmp_path / "out").items():
        wide = old[name].double().numpy()
        wanted = wide - 0.5 * (full[name] - wide)
        np.testing.assert_allclose(tensor.double().numpy(), wanted, rtol=2e-6, atol=1e-6, err_msg=name)


def test_the_same_bytes_whatever_blocks_lanes_and_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of several blocks: one under a reduction, one with rows of an odd length, one
    turned."""
    tensors = {
        "x.weight": normal(2003, 256, seed=19),
        "y.weight": normal(613, 701, seed=20),
        "z.weight": normal(701, 613, seed=21),
    }
    (tmp_path / "base").mkdir()
    checkpoints.store(tensors, tmp_path / "base")
    made = lora_adapters.factors(tensors, ["x", "y"], 16) | lora_adapters.factors(tensors, ["z"], 16, turned=True)
    folder = lora_adapters.write(tmp_path / "adapter", made, r=16, lora_alpha=3)
    text = f'let base = model("{tmp_path}/base")\nlet tuned = base + lora("{folder}")\n'
    recipe = text + '* = tuned\n"x.*" = slerp(tuned, base, t=0.3)\n'
    results = []
    for lanes, memory, portable in ((1, None, False), (3, None, False), (2, 3 << 20, False), (2, None, True)):
        if portable:
            monkeypatch.setattr(backend, "kernels", lambda: None)
        compiled = mergec.compile(recipe, device="cpu", lanes=lanes, memory=memory)
        report = compiled.run(tmp_path / "out", force=True, fresh=True)
        assert report.outcome.peak_host <= compiled.plan.peak_host
        results.append(checkpoints.load(tmp_path / "out"))
    assert all(torch.equal(results[0][name], other[name]) for other in results[1:] for name in tensors)


def test_a_head_of_its_own_unties(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("llama-tied")
    head = normal(*checkpoints.load(base)["model.embed_tokens.weight"].shape, seed=24)
    folder = lora_adapters.write(tmp_path / "adapter", {"lm_head.weight": head}, r=4, lora_alpha=8)
    with pytest.raises(mergec.MergecError) as caught:
        merge_folders(f'* = base + lora("{folder}")', tmp_path / "out", base=base)
    assert [d.code for d in caught.value.diagnostics] == ["E0310"]
    recipe = f'let tuned = base + lora("{folder}")\n* = tuned\nhead = tuned'
    merge_folders(recipe, tmp_path / "out", base=base)
    assert torch.equal(checkpoints.load(tmp_path / "out")["lm_head.weight"], head)
    assert not json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["tie_word_embeddings"]


def test_an_adapter_that_has_changed_is_applied_anew(checkpoint: Make, tmp_path: Path) -> None:
    """A second run computes what the other adapter changes, and takes the rest from the first one's
    output."""
    base = checkpoint("llama")
    tensors = lora_adapters.factors(checkpoints.load(base), ATTENTION)
    config = {"r": 4, "lora_alpha": 8}
    folder = lora_adapters.write(tmp_path / "adapter", tensors, **config)
    recipe = f'let base = model("{base}")\n* = slerp(base + lora("{folder}"), base, t=0.3)'
    mergec.compile(recipe, device="cpu").run(tmp_path / "out")
    tensors[f"{ATTENTION[0]}.lora_A.weight"] *= 2
    lora_adapters.write(folder, tensors, **config)
    compiled = mergec.compile(recipe, device="cpu")
    compiled.run(tmp_path / "out", force=True)
    compiled.run(tmp_path / "fresh")
    made, wanted = checkpoints.load(tmp_path / "out"), checkpoints.load(tmp_path / "fresh")
    assert all(torch.equal(made[name], tensor) for name, tensor in wanted.items())


def test_a_plan_with_less_to_do_keeps_the_factors(checkpoint: Make, tmp_path: Path) -> None:
    """Of a tensor that is left out the factors go too; those of the others stay."""
    base = checkpoint("llama")
    tensors = lora_adapters.factors(checkpoints.load(base), ATTENTION)
    folder = lora_adapters.write(tmp_path / "adapter", tensors, r=4, lora_alpha=8)
    plan = mergec.compile(f'let base = model("{base}")\n* = base + lora("{folder}")', device="cpu").plan
    changed = [k for k, t in enumerate(plan.tensors) if "self_attn" in t.name]
    less = prune(plan, changed[1:])
    made = [a.buffer for s in less.steps for a in s.allocate]
    assert len(made) == 2
    assert made == [buffer for s in less.steps for buffer in s.release]
    (operand,) = (
        o for s in less.steps if isinstance(s.action, Pass) for o in s.action.operands if isinstance(o, Product)
    )
    assert [operand.left.buffer, operand.right.buffer] == made
