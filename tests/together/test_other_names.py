"""Models whose tensors have other names than the output's: the `rename` that an error shows makes
them one, and the result is that of the names as they should be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import mergec
import pytest
import torch
from merging import merge
from safetensors.torch import load_file, save_file

Rename = Callable[[str], str]


def llama(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"model.embed_tokens.weight": (8, 4), "model.norm.weight": (4,), "lm_head.weight": (8, 4)}
    for k in range(3):
        shapes |= {
            f"model.layers.{k}.{module}.weight": shape
            for module, shape in {
                "self_attn.q_proj": (4, 4),
                "self_attn.o_proj": (4, 4),
                "mlp.up_proj": (6, 4),
                "mlp.down_proj": (4, 6),
                "input_layernorm": (4,),
            }.items()
        }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def codec(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {f"encoder.blocks.{k}.{m}.weight_g": (4, 1, 1) for k in range(3) for m in ("conv1", "conv2")}
    shapes |= {n.replace("weight_g", "weight_v"): (4, 4, 3) for n in shapes}
    shapes |= {n.replace("weight_g", "bias"): (4,) for n in shapes if n.endswith("weight_g")}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def respelled(name: str) -> str:
    ends = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return re.sub(r"weight_[gv]$", lambda found: ends[found[0]], name)


CASES: dict[str, tuple[Callable[[int], dict[str, torch.Tensor]], Rename]] = {
    "compiled": (llama, lambda n: f"_orig_mod.{n}"),
    "data-parallel": (llama, lambda n: f"module.{n}"),
    "both": (llama, lambda n: f"module._orig_mod.{n}"),
    "trainer": (llama, lambda n: f"model.{n}"),
    "each-layer-compiled": (llama, lambda n: re.sub(r"(layers\.\d+)\.", r"\1._orig_mod.", n)),
    "each-module-wrapped": (llama, lambda n: re.sub(r"\.(self_attn|mlp)\.", r".\1._checkpoint_wrapped_module.", n)),
    "other-words": (llama, lambda n: n.replace("model.", "backbone.").replace(".layers.", ".blocks.")),
    "weight-norm": (codec, respelled),
    "weight-norm-wrapped": (codec, lambda n: f"module.{respelled(n)}"),
}


@pytest.mark.parametrize("template", ["plain", "other"])
@pytest.mark.parametrize("case", CASES)
def test_the_rename_that_is_shown_is_right(case: str, template: str, tmp_path: Path) -> None:
    make, other = CASES[case]
    one, two = make(1), make(2)
    save_file(one, tmp_path / "plain.safetensors")
    save_file({other(name): tensor for name, tensor in two.items()}, tmp_path / "other.safetensors")
    sources = {name: f'"{tmp_path}/{name}.safetensors"' for name in ("plain", "other")}
    lets = {name: f"let {name} = model({source})" for name, source in sources.items()}
    end = f"output(like={template})\n* = slerp(plain, other, t=0.25)"
    with pytest.raises(mergec.MergecError) as caught:
        mergec.compile("\n".join([*lets.values(), end]), device="cpu")
    (found,) = caught.value.diagnostics
    assert found.code == "E0478"
    (shown,) = found.help
    told = re.fullmatch(r"rename the tensors of `(\w+)`: `(model\(.*, rename=\{.*\}\))`", shown)
    assert told is not None, shown
    lets[told[1]] = f"let {told[1]} = {told[2]}"
    mergec.compile("\n".join([*lets.values(), end]), device="cpu").run(tmp_path / "out")
    made = load_file(tmp_path / "out" / "model.safetensors")
    named = one if made.keys() == one.keys() else {other(name): tensor for name, tensor in one.items()}
    assert made.keys() == named.keys()
    wanted = merge("* = slerp(a, b, t=0.25)", {"a": one, "b": two})
    for (name, tensor), same in zip(named.items(), one, strict=True):
        assert tensor is one[same]
        assert torch.equal(made[name], wanted[same])


def test_places_that_correspond_are_shown_where_no_rename_does() -> None:
    one = llama(1)
    two = {f"trunk.{n}": t for n, t in llama(2).items() if ".layers." in n} | {"trunk.patches.weight": torch.ones(9, 4)}
    with pytest.raises(mergec.MergecError) as caught:
        merge("* = linear(a, b)", {"a": one, "b": two})
    (found,) = caught.value.diagnostics
    assert found.help == ("pick what corresponds, each in a statement of its own: `b.layers` for `layers`",)
    made = merge("* = a\nlayers = linear(a, b.layers)", {"a": one, "b": two})
    for name, tensor in made.items():
        wanted = (one[name].double() + two[f"trunk.{name}"].double()) / 2 if ".layers." in name else one[name].double()
        torch.testing.assert_close(tensor.double(), wanted, rtol=0, atol=1e-6)
