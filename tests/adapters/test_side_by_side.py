"""Several adapters on one model: each changes the model's own tensors, and the changes are added,
in any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import checkpoints
import lora_adapters
import mergec
import numpy as np
import pytest
import torch
from lora_adapters import Tensors, normal
from merging import compile_folders, merge_folders

Make = Callable[..., Path]
MODULES = [f"model.layers.{k}.self_attn.{x}_proj" for k in range(2) for x in "qv"]
CONFIG: dict[str, Any] = {"r": 4, "lora_alpha": 8}
EMBED = "model.embed_tokens"


def dora(base: Mapping[str, torch.Tensor], modules: list[str], seed: int, turned: bool = False) -> Tensors:
    tensors = lora_adapters.factors(base, modules, seed=seed, turned=turned)
    for k, module in enumerate(modules):
        outputs = base[f"{module}.weight"].shape[1 if turned else 0]
        tensors[f"{module}.lora_magnitude_vector"] = normal(outputs, seed=100 * seed + k).abs() + 0.5
    return tensors


def embedding(base: Mapping[str, torch.Tensor], seed: int) -> Tensors:
    rows, width = base[f"{EMBED}.weight"].shape
    return {
        f"{EMBED}.lora_embedding_A": normal(4, rows, seed=seed) * 0.1,
        f"{EMBED}.lora_embedding_B": normal(width, 4, seed=seed + 1) * 0.1,
        f"{EMBED}.lora_magnitude_vector": normal(width, seed=seed + 2).abs() + 0.5,
    }


def check(base: Path, tmp_path: Path, adapters: list[Tensors], **config: Any) -> None:
    """Adds adapters in both orders, and compares with the sum of what each makes of the model."""
    old = checkpoints.load(base)
    folders = [lora_adapters.write(tmp_path / f"{k}", t, **CONFIG, **config) for k, t in enumerate(adapters)]
    wanted = {name: tensor.double().numpy() for name, tensor in old.items()}
    for tensors in adapters:
        one = lora_adapters.applied(old, tensors, CONFIG | config)
        wanted = {name: wanted[name] + (one[name] - old[name].double().numpy()) for name in wanted}
    for k, order in enumerate((folders, folders[::-1])):
        recipe = "* = base" + "".join(f' + lora("{folder}")' for folder in order)
        merge_folders(recipe, tmp_path / f"out{k}", base=base)
        for name, tensor in checkpoints.load(tmp_path / f"out{k}").items():
            np.testing.assert_allclose(tensor.double().numpy(), wanted[name], rtol=1e-5, atol=5e-6, err_msg=name)


def test_two_with_magnitudes(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("llama")
    old = checkpoints.load(base)
    one, two = ({**dora(old, MODULES, seed), **embedding(old, 10 * seed)} for seed in (1, 2))
    check(base, tmp_path, [one, two], use_dora=True)


def test_three_of_which_one_has_no_magnitudes(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("llama")
    old = checkpoints.load(base)
    plain = lora_adapters.factors(old, MODULES[1:], seed=3)
    check(base, tmp_path, [dora(old, MODULES, 1), plain, dora(old, MODULES[:3], 2)], use_dora=True, use_rslora=True)


def test_with_inputs_along_the_first_axis(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("gpt2")
    old, modules = checkpoints.load(base), ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"]
    adapters = [dora(old, modules, seed, turned=True) for seed in (1, 2)]
    check(base, tmp_path, adapters, use_dora=True, fan_in_fan_out=True)


def test_under_other_names_and_in_a_method(checkpoint: Make, finetuned: Make, tmp_path: Path) -> None:
    """A name for the model with one adapter is no more than a name."""
    base, a = checkpoint("llama"), finetuned("llama", 1)
    old = checkpoints.load(base)
    adapters = [dora(old, MODULES, seed) for seed in (1, 2)]
    for k, tensors in enumerate(adapters):
        lora_adapters.write(tmp_path / f"{k}", tensors, **CONFIG, use_dora=True)
    recipe = f"""
    let one = base + lora("{tmp_path}/0")
    let both = lora("{tmp_path}/1") + one
    * = linear(both, a, weight=[0.75, 0.25])
    """
    merge_folders(recipe, tmp_path / "out", base=base, a=a)
    made, other = checkpoints.load(tmp_path / "out"), checkpoints.load(a)
    whole = [lora_adapters.applied(old, tensors, CONFIG) for tensors in adapters]
    for name in (f"{m}.weight" for m in MODULES):
        both = whole[0][name] + whole[1][name] - old[name].double().numpy()
        wanted = 0.75 * both + 0.25 * other[name].double().numpy()
        np.testing.assert_allclose(made[name].double().numpy(), wanted, rtol=1e-5, atol=5e-6, err_msg=name)


def test_a_whole_tensor_beside_factors_of_another(checkpoint: Make, tmp_path: Path) -> None:
    """Neither is lost, whichever is named first."""
    base = checkpoint("llama")
    old, module = checkpoints.load(base), MODULES[0]
    new, factors = normal(*old[f"{module}.weight"].shape, seed=5), lora_adapters.factors(old, [module])
    lora_adapters.write(tmp_path / "0", {f"{module}.weight": new}, **CONFIG)
    lora_adapters.write(tmp_path / "1", factors, **CONFIG)
    wanted = lora_adapters.applied(old | {f"{module}.weight": new}, factors, CONFIG)[f"{module}.weight"]
    for first, second in ("01", "10"):
        merge_folders(
            f'* = base + lora("{tmp_path}/{first}") + lora("{tmp_path}/{second}")', tmp_path / "out", base=base
        )
        made = checkpoints.load(tmp_path / "out")[f"{module}.weight"]
        np.testing.assert_allclose(made.double().numpy(), wanted, rtol=2e-6, atol=1e-6)


def test_factors_over_equal_copies_of_the_model_s_weight(checkpoint: Make, tmp_path: Path) -> None:
    """PEFT saves the embedding below its factors; of two adapters the second one's copy must not
    undo the first."""
    base = checkpoint("llama")
    old = checkpoints.load(base)
    adapters = []
    for seed in (1, 4):
        tensors = {k: t for k, t in embedding(old, seed).items() if "magnitude" not in k}
        adapters.append({**tensors, f"{EMBED}.base_layer.weight": old[f"{EMBED}.weight"].clone()})
    check(base, tmp_path, adapters)


def test_two_that_replace_one_tensor(checkpoint: Make, tmp_path: Path) -> None:
    base = checkpoint("llama")
    shape = checkpoints.load(base)[f"{EMBED}.weight"].shape
    news = [normal(*shape, seed=seed) for seed in (1, 2)]
    for k, new in enumerate(news):
        lora_adapters.write(tmp_path / f"{k}", {f"{EMBED}.weight": new}, **CONFIG)
    recipe = f'* = base + lora("{tmp_path}/0") + lora("{tmp_path}/1")\n'
    with pytest.raises(mergec.MergecError) as caught:
        compile_folders(recipe, base=base)
    (error,) = caught.value.diagnostics
    assert error.code == "E0463"
    for help_, wanted in zip(error.help, news, strict=True):
        merge_folders(recipe + help_.split("`")[1], tmp_path / "out", base=base)
        assert torch.equal(checkpoints.load(tmp_path / "out")[f"{EMBED}.weight"], wanted)


def test_a_trained_module_under_both_of_its_names(checkpoint: Make, tmp_path: Path) -> None:
    """`X.weight` and `X.modules_to_save.weight` are one if their bytes are equal; `original_module`
    is what was."""
    base = checkpoint("llama")
    old = checkpoints.load(base)[f"{EMBED}.weight"]
    new = normal(*old.shape, seed=1)
    tensors = {
        f"{EMBED}.weight": new,
        f"{EMBED}.modules_to_save.weight": new.clone(),
        f"{EMBED}.original_module.weight": old,
    }
    folder = lora_adapters.write(tmp_path / "adapter", tensors, **CONFIG)
    merge_folders(f'* = base + lora("{folder}")', tmp_path / "out", base=base)
    assert torch.equal(checkpoints.load(tmp_path / "out")[f"{EMBED}.weight"], new)
    lora_adapters.write(folder, tensors | {f"{EMBED}.modules_to_save.weight": new + 1}, **CONFIG)
    with pytest.raises(mergec.MergecError) as caught:
        compile_folders(f'* = base + lora("{folder}")', base=base)
    assert [d.code for d in caught.value.diagnostics] == ["E0453"]
