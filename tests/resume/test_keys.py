"""A key changes with what its tensor is made of, and with nothing else: every operation and every
method of the library in one merge, of which one file of one model changes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import mergec
import pytest
import torch
from mergec.compiler.graph.graph import below
from mergec.compiler.ops.table import OPS
from method_calls import VALUES
from safetensors.torch import save_file

REGION = mergec.Parameter("x", kind="region")


def halved(out: torch.Tensor, tensors: Any, numbers: Any, scratch: torch.Tensor) -> None:  # noqa: ARG001
    torch.mul(tensors[0], 0.5, out=out)


def turned(out: torch.Tensor, tensors: Any, numbers: Any) -> None:  # noqa: ARG001
    out.copy_(tensors[0].flip(0))


PRIMITIVES = [
    mergec.Primitive("halved", (REGION,), "", f"{__name__}:halved"),
    mergec.Primitive("turned", (REGION,), "", f"{__name__}:turned", kind="opaque"),
]
UNREACHED = {"mean_rows"}
"""Of a vocabulary that is padded; `test_edited_folders.py` has it."""
WHOLE = re.compile(r'across|scope="model"|^emr|^lines_merge|^pcb\(a, b, c\)')
"""Values with numbers of all tensors of their statement."""
MODELS = ("base", "a", "b", "c")
PARTS = {"q": (8, 8), "k": (8, 8), "v": (8, 8), "norm": (8,)}
SHARDS = {"q": 0, "k": 1, "v": 0, "norm": 0}
"""In which file of its model a tensor is; `q`, `k` and `v` are computed alike."""


def write_shard(folder: Path, shard: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    tensors = {
        f"layers.{k}.{part}.weight": torch.randn(shape, generator=random)
        for k in range(len(VALUES))
        for part, shape in PARTS.items()
        if SHARDS[part] == shard
    }
    save_file(tensors, folder / f"model-{shard + 1:05}-of-00002.safetensors")


def write_models(folder: Path) -> None:
    for number, name in enumerate(MODELS):
        (folder / name).mkdir()
        for shard in range(2):
            write_shard(folder / name, shard, 2 * number + shard)
        files = {part: f"model-{shard + 1:05}-of-00002.safetensors" for part, shard in SHARDS.items()}
        weights = {f"layers.{k}.{part}.weight": files[part] for k in range(len(VALUES)) for part in PARTS}
        (folder / name / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


def compiled(folder: Path) -> mergec.Compiled:
    lets = "".join(f'let {name} = model("{folder}/{name}")\n' for name in MODELS)
    lines = "".join(f"layers[{k}] = {value}\n" for k, value in enumerate(VALUES))
    return mergec.compile(lets + "output(like=base)\n" + lines, primitives=PRIMITIVES, device="cpu")


def keys(compilation: mergec.Compiled) -> dict[str, str]:
    return {t.name: t.key for t in compilation.plan.tensors}


def values(out: Path) -> dict[str, bytes]:
    found = {}
    for path in out.glob("*.safetensors"):
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        for name, entry in json.loads(raw[8 : 8 + size]).items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                found[name] = raw[8 + size + start : 8 + size + end]
    return found


def test_every_operation_is_in_it(tmp_path: Path) -> None:
    write_models(tmp_path)
    graph = compiled(tmp_path).compilation.graph
    assert {node.op for node in below(o.node for o in graph.outputs)} >= OPS.keys() - UNREACHED
    assert sum(o.equivalence is not None for o in graph.outputs) > len(VALUES)


@pytest.mark.parametrize(("changed", "shard"), [("a", 1), ("base", 0)])
def test_one_file_of_one_model_has_changed(changed: str, shard: int, tmp_path: Path) -> None:
    write_models(tmp_path)
    before, out = compiled(tmp_path), tmp_path / "out"
    before.run(out)
    first = values(out)
    write_shard(tmp_path / changed, shard, 100)
    after = compiled(tmp_path)
    report = after.run(out, force=True)
    after.run(tmp_path / "fresh", fresh=True)
    assert values(out) == values(tmp_path / "fresh")

    other = {name for name in first if values(out)[name] != first[name]}
    made_anew = {name for name, key in keys(after).items() if keys(before)[name] != key}
    assert other <= made_anew
    assert report.reused == len(first) - len(made_anew)
    # a tensor alone depends on the file that its own part is in; where a number of all of them is
    # in it, on each
    for name in made_anew:
        layer, part = re.fullmatch(r"layers\.(\d+)\.(\w+)\.weight", name).groups()
        value = VALUES[int(layer)]
        if not WHOLE.search(value):
            assert SHARDS[part] == shard, value
        # methods take what the recipe calls `base` without being told
        assert changed == "base" or re.search(rf"\b{changed}\b", value), value
