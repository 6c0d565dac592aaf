"""In a model put together from parts, `_` is the model that all else comes from: its depth, its
tensors, its layers."""

from __future__ import annotations

from typing import Any

import mergec
import pytest
from mergec.compiler.graph.graph import Node

WIDTH = 4


def llama(layers: int, *, bias: bool = False) -> dict[str, Any]:
    tensors = {"model.embed_tokens.weight": ("F32", (8, WIDTH))}
    for i in range(layers):
        tensors[f"model.layers.{i}.self_attn.o_proj.weight"] = ("F32", (WIDTH, WIDTH))
        tensors[f"model.layers.{i}.mlp.up_proj.weight"] = ("F32", (WIDTH, WIDTH))
        if bias:
            tensors[f"model.layers.{i}.mlp.up_proj.bias"] = ("F32", (WIDTH,))
    tensors |= {"model.norm.weight": ("F32", (WIDTH,)), "lm_head.weight": ("F32", (8, WIDTH))}
    return {"tensors": tensors, "config": {"model_type": "llama", "num_hidden_layers": layers}}


MODELS = {"two": llama(2), "four": llama(4), "six": llama(6), "biased": llama(4, bias=True)}
LETS = "".join(f'let {name} = model("{name}")\n' for name in MODELS)


def sources(recipe: str) -> dict[str, str]:
    """Each tensor of the output and the `MODEL NAME` that it is a copy of; other values as the text
    of their node."""
    made = mergec.compile(LETS + recipe, catalog=mergec.MemoryCatalog(MODELS), device="cpu")
    labels = [m.label for m in made.compilation.recipe.models]

    def text(node: Node) -> str:
        if node.op != "source":
            return f"{node.op}({', '.join(map(text, node.inputs))})" if node.inputs else f"{node.attributes[0][1]:g}"
        found = node.attribute("range")
        return f"{labels[found.model]} {found.stored}"

    out = {}
    for o in made.compilation.graph.outputs:
        shown = text(o.node)
        if o.equivalence is not None and o.node.op == "source":
            found = o.equivalence.range(0, o.reads[0])
            shown = f"{labels[found.model]} {found.stored}"
        out[o.name] = shown
    return out


UP = "model.layers.{}.mlp.up_proj.weight"
ATTN = "model.layers.{}.self_attn.o_proj.weight"


@pytest.mark.parametrize("order", ["norm: two, head: six, _: four", "_: four, norm: two, head: six"])
def test_depth_and_tensors_are_those_of_the_rest(order: str) -> None:
    found = sources(f"output(like=two)\n* = {{{order}}}")
    wanted = {name: f"four {name}" for name in MODELS["four"]["tensors"]}
    wanted |= {"model.norm.weight": "two model.norm.weight", "lm_head.weight": "six lm_head.weight"}
    assert found == wanted


def test_without_a_rest_it_is_the_first_whole_model() -> None:
    recipe = "output(like=six)\n* = {layers: four, norm: two, embed: two, head: two}"
    found = sources(recipe)
    assert found[UP.format(3)] == f"four {UP.format(3)}"
    assert UP.format(4) not in found
    assert found["model.norm.weight"] == "two model.norm.weight"


def test_picked_layers_do_not_stand_for_the_whole() -> None:
    """Layers of a model say nothing of how deep the result is: the one that is used whole does."""
    found = sources("output(like=two)\n* = {layers[1]: six.layers[5], _: four}")
    assert found[UP.format(1)] == f"six {UP.format(5)}"
    assert found[UP.format(3)] == f"four {UP.format(3)}"
    assert UP.format(4) not in found


def test_the_first_of_several_in_the_rest() -> None:
    found = sources("output(like=four)\n* = {norm: two, _: 0.5*four + biased}")
    assert {name for name in found if ".layers." in name and name.endswith("weight")} == {
        n for n in MODELS["four"]["tensors"] if ".layers." in n
    }


def test_one_put_together_of_another_has_its_layers() -> None:
    recipe = (
        "let tall = {layers: stack(six.layers[4..5], two.layers[0], six.layers[0]), _: six}\n"
        "let again = {norm: two, _: tall}\n* = again"
    )
    found = sources(f"output(like=two)\n{recipe}")
    taken = [("six", 4), ("six", 5), ("two", 0), ("six", 0)]
    for j, (label, i) in enumerate(taken):
        assert found[UP.format(j)] == f"{label} {UP.format(i)}"
        assert found[ATTN.format(j)] == f"{label} {ATTN.format(i)}"
    assert UP.format(4) not in found
    assert (found["model.norm.weight"], found["lm_head.weight"]) == ("two model.norm.weight", "six lm_head.weight")
    # and so have its layers, picked
    picked = recipe.replace("* = again", "* = two\nlayers = stack(again.layers[2..3])")
    found = sources(f"output(like=two)\n{picked}")
    assert [found[UP.format(j)] for j in range(2)] == [f"two {UP.format(0)}", f"six {UP.format(0)}"]


def test_the_name_of_a_whole_stack_and_all_of_its_layers_are_one() -> None:
    for key in ("layers", "layers[*]"):
        found = sources(f"output(like=two)\n* = {{{key}: stack(six.layers[3..5]), _: four}}")
        assert [found.get(UP.format(j)) for j in range(4)] == [*(f"six {UP.format(3 + j)}" for j in range(3)), None]


def test_layers_have_the_tensors_of_where_they_are_from() -> None:
    recipe = "* = four\nlayers = stack(biased.layers[1], four.layers[1..2], biased.layers[3])"
    found = sources(f"output(like=four)\n{recipe}")
    bias = "model.layers.{}.mlp.up_proj.bias"
    assert [j for j in range(4) if bias.format(j) in found] == [0, 3]
    assert (found[bias.format(0)], found[bias.format(3)]) == (f"biased {bias.format(1)}", f"biased {bias.format(3)}")


@pytest.mark.parametrize("later", ["layers = four", "layers[*] = four", "* = four"])
def test_a_later_value_for_all_layers_takes_back_what_a_stack_brought(later: str) -> None:
    """Their tensors too: a bias that the stack's layers had is not one of the output's any more."""
    found = sources(f"output(like=four)\n* = four\nlayers = stack(biased.layers[0..3])\n{later}")
    assert found == {name: f"four {name}" for name in MODELS["four"]["tensors"]}


@pytest.mark.parametrize("order", ["b.layers[0..3]", "b.layers[3], b.layers[0..1]"])
def test_a_later_layer_of_a_stack_has_the_tensors_of_where_it_is_from(order: str) -> None:
    """Optional ones too, whichever side has them."""
    bias = "model.layers.{}.mlp.up_proj.bias"
    lets = f"let b = biased\nlet d = six\n* = four\nlayers = stack({order})\n"
    depth = 4 if "0..3" in order else 3
    found = sources(f"output(like=four)\n{lets}layers[0] = d.layers[0]")
    assert found[UP.format(0)] == f"six {UP.format(0)}"
    assert [j for j in range(depth) if bias.format(j) in found] == list(range(1, depth))
    # a mean has what one of them has; a model taken whole, what it has there
    found = sources(f"output(like=four)\n{lets}layers[0] = linear(d.layers[0], b.layers[1])\nlayers[1] = four")
    assert [j for j in range(depth) if bias.format(j) in found] == [0, *range(2, depth)]
    # and the other way round: of a stack without biases one layer that has one
    found = sources("output(like=four)\n* = four\nlayers = stack(six.layers[0..2])\nlayers[1] = biased.layers[3]")
    assert [j for j in range(3) if bias.format(j) in found] == [1]
    assert found[bias.format(1)] == f"biased {bias.format(3)}"
