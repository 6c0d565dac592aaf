"""What depends on a weight file: as a naive look at each output's value says, and word for word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import commands
import pytest
import torch
from mergec.cli.explain import explain
from mergec.compiler.graph.dependence import dependents
from mergec.compiler.graph.graph import below, value_of
from mergec.compiler.pipeline import Compilation
from safetensors.torch import save_file

Compile = Callable[..., Compilation]

RECIPES = {
    "alike": "* = ties(a, b, base=base, density=0.5)",
    "in part": "layers[0..1].mlp = 0.5 * a + 0.5 * base\nnorm = a\nhead = tie(embed)",
    "a number of the whole model": 'layers[2] = ties(a, b, base=base, density=0.5, scope="model")\nnorm = a',
    "tensors of other layers": "layers[0] = a.layers[3]\nlayers[1..2] = (a.layers[1..2] + b.layers[2..3]) / 2",
    "nothing": "* = 0 * a + base",
}
HEAD = 'let base = model("base")\nlet a = model("a")\nlet b = model("b")\noutput(like=base)\n'


@pytest.mark.parametrize("name", RECIPES)
def test_dependents_are_those_whose_value_has_the_tensor(name: str, compilation: Compile) -> None:
    merged = compilation(HEAD + RECIPES[name])
    sources: dict[str, set[tuple[int, str]]] = {}
    for output in merged.graph.outputs:
        ranges = [n.attribute("range") for n in below([value_of(output)]) if n.op == "source"]
        sources[output.name] = {(place.model, place.stored) for place in ranges}
    for model in merged.recipe.inputs:
        stored = {(model.number, stored) for stored in model.checkpoint.tensors}
        for tensors in [stored, *({each} for each in stored)]:
            expected = {output for output, read in sources.items() if read & tensors}
            assert dependents(merged.graph, tensors) == (tensors & set().union(*sources.values()), expected)


TEXT = """\
memory:a
  input       a
  read        16 of its 38 tensors
  needed by   16 of 38 tensors of the output
              layers[0..2].mlp.gate_proj.weight, layers[0..2].mlp.up_proj.weight,
              layers[0..2].mlp.down_proj.weight, layers[2] (6 tensors each), model.norm.weight
  written to  model.safetensors

statements
  line  place             tensors  value
     5  layers[0..1].mlp        6  0.5 * a + 0.5 * base
     6  layers[2]               9  linear(a, base)
     7  norm                    1  a
"""


def test_what_depends_on_a_file(compilation: Compile) -> None:
    merged = compilation(HEAD + "layers[0..1].mlp = 0.5 * a + 0.5 * base\nlayers[2] = linear(a, base)\nnorm = a")
    assert explain(merged, place="memory:a") == TEXT
    assert explain(merged, place="memory:b") == (
        "memory:b\n  input      b\n  read       0 of its 38 tensors\n  needed by  nothing of the output\n"
    )
    assert explain(merged, place="memory:base").endswith("       (the rest)             22  copied from `base`\n")


def test_a_file_of_a_sharded_checkpoint(tmp_path: Path) -> None:
    shards = {f"model-0000{k}-of-00002.safetensors": f"model.layers.{k - 1}.mlp.weight" for k in (1, 2)}
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for shard, tensor in shards.items():
            save_file({tensor: torch.ones(4, 4)}, tmp_path / folder / shard)
        index = {"metadata": {}, "weight_map": {tensor: shard for shard, tensor in shards.items()}}
        (tmp_path / folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "r.mrg").write_text('let a = model("a")\nlet b = model("b")\n* = 0.5 * a + 0.5 * b\n')
    second = "b/model-00002-of-00002.safetensors"
    for name in (second, tmp_path / second):
        told = commands.mergec("--explain", "r.mrg", name, folder=tmp_path)
        assert told.returncode == 0, told.stderr
        assert b"1 of 2 tensors of the output\n              layers[1].mlp.weight\n" in told.stdout
    assert commands.mergec("--explain=dot", "r.mrg", second, folder=tmp_path).returncode == 2
    told = commands.mergec("--explain", "r.mrg", "b/model-00003-of-00002.safetensors", folder=tmp_path)
    assert (told.returncode, b"E0108" in told.stderr) == (1, True)
