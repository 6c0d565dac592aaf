"""Layers that differ in names and shapes, in another order than the template's."""

from __future__ import annotations

from typing import Any

import mergec
import pytest
from mergec.grammar.diagnostic import MergecError

WIDTH = 4


def model(kinds: str, wide: int = 8, number: str = "deepseek_v3") -> dict[str, Any]:
    """Dense layers (d), those with experts (e), and dense ones with wider heads (w)."""
    tensors = {"model.embed_tokens.weight": ("F32", (8, WIDTH)), "model.norm.weight": ("F32", (WIDTH,))}
    for i, kind in enumerate(kinds):
        head = f"model.layers.{i}"
        tensors[f"{head}.self_attn.o_proj.weight"] = ("F32", (WIDTH, wide if kind == "w" else WIDTH))
        if kind == "e":
            tensors[f"{head}.mlp.gate.weight"] = ("F32", (2, WIDTH))
            for e in range(2):
                tensors[f"{head}.mlp.experts.{e}.up_proj.weight"] = ("F32", (WIDTH, WIDTH))
        else:
            tensors[f"{head}.mlp.up_proj.weight"] = ("F32", (WIDTH, WIDTH))
    tensors["lm_head.weight"] = ("F32", (8, WIDTH))
    config = {"model_type": number, "num_hidden_layers": len(kinds), "vocab_size": 8}
    return {"tensors": tensors, "config": config | {"first_k_dense_replace": kinds.count("d")}}


def shapes(recipe: str, **models: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    lets = "".join(f'let {name} = model("{name}")\n' for name in models)
    made = mergec.compile(lets + recipe, catalog=mergec.MemoryCatalog(models), device="cpu")
    return {output.name: output.shape for output in made.compilation.graph.outputs}


def wanted(model: dict[str, Any], order: list[int]) -> dict[str, tuple[int, ...]]:
    out = {name: shape for name, (_, shape) in model["tensors"].items() if ".layers." not in name}
    for j, i in enumerate(order):
        head = f"model.layers.{i}."
        found = {n: shape for n, (_, shape) in model["tensors"].items() if n.startswith(head)}
        out |= {name.replace(head, f"model.layers.{j}."): shape for name, shape in found.items()}
    return out


@pytest.mark.parametrize("order", [[0, 0, 1, 2], [2, 3], [0, 1, 1, 1, 1, 2]])
def test_names_follow(order: list[int]) -> None:
    a = model("dddeee"[2:])
    parts = ", ".join(f"a.layers[{i}]" for i in order)
    assert shapes(f"* = a\nlayers = stack({parts})", a=a) == wanted(a, order)


def test_names_follow_where_layers_are_given_by_number() -> None:
    a = model("ddee")
    assert shapes("* = a\nlayers[1] = a.layers[3]", a=a) == wanted(a, [0, 3, 2, 3])
    assert shapes("* = a\nlayers[2..3] = a.layers[0..1]", a=a) == wanted(a, [0, 1, 0, 1])
    recipe = "* = a\nlayers = stack(a.layers[0..3])\nlayers[1] = a.layers[2]"
    assert shapes(recipe, a=a) == wanted(a, [0, 2, 2, 3])


@pytest.mark.parametrize("order", [[1, 0, 2], [1, 1, 0, 2, 1], [2, 2, 1]])
def test_shapes_follow(order: list[int]) -> None:
    a = model("fwf", number="unheard")
    parts = ", ".join(f"a.layers[{i}]" for i in order)
    assert shapes(f"* = a\nlayers = stack({parts})", a=a) == wanted(a, order)
    given = "\n".join(f"layers[{j}] = a.layers[{i}]" for j, i in enumerate(order))
    assert shapes(f"* = a\n{given}", a=a) == wanted(a, order)


@pytest.mark.parametrize("at", [0, 3])
def test_a_shape_that_no_layer_of_the_template_has_is_refused(at: int) -> None:
    """Past its depth as within."""
    a, b = model("fff", number="unheard"), model("fwf", 6, number="unheard")
    parts = ["a.layers[0]", "a.layers[1]", "a.layers[2]"]
    parts.insert(at, "b.layers[1]")
    with pytest.raises(MergecError) as caught:
        shapes(f"output(like=a)\n* = a\nlayers = stack({', '.join(parts)})", a=a, b=b)
    assert [d.code for d in caught.value.diagnostics] == ["E0307"]
