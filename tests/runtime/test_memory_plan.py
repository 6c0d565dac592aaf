"""What the plan says about memory and reads is what a run measures; compiling reads headers and
nothing else."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import checkpoints
import mergec
import pytest
import torch
from mergec.compiler.plan.plan import Pass
from merging import compile_folders
from safetensors.torch import load_file, save_file

Make = Callable[..., Path]
RECIPES = (
    "* = base",
    "* = linear(a, b, weight=[0.3, 0.7])",
    "* = slerp(a, b, t=0.3)",
    "* = ties(a, b, density=0.5)",
    "* = ties(a, b, density=[0.5, curve([0, 1])])",
    "* = dare_ties(a, b, density=0.5)",
    '* = dare_linear(a, b, density=0.5, rescale="l1")',
    "let m = slerp(a, b, t=0.4)\n* = ties(m, a, density=0.4)",
    'output(dtype="bfloat16", compute="float64")\n* = base + 0.5*(a - b)',
    "layers[1].mlp = a\nhead = tie(embed)",
)


@pytest.fixture(scope="module")
def folders(checkpoint: Make, finetuned: Make) -> dict[str, Path]:
    return {"base": checkpoint("llama-tied"), "a": finetuned("llama-tied", 1), "b": finetuned("llama-tied", 2)}


def large(folder: Path) -> dict[str, Path]:
    """Three models of tensors that need several blocks each."""
    out = {}
    for k, label in enumerate(("base", "a", "b")):
        torch.manual_seed(k)
        tensors = {"x": torch.randn(700, 701), "y": torch.randn(90_000).bfloat16(), "z": torch.randn(())}
        save_file(tensors, folder / f"{label}.safetensors")
        out[label] = folder / f"{label}.safetensors"
    return out


def check(compiled: mergec.Compiled, out: Path) -> None:
    outcome = compiled.run(out).outcome
    assert outcome.peak_host == compiled.plan.peak_host
    assert outcome.peak_device == compiled.plan.peak_device == 0
    # selecting the largest takes as many rounds over its input as the weights need
    passes = [step.action for step in compiled.plan.steps if isinstance(step.action, Pass)]
    selects = any(r.op == "threshold" for p in passes for r in p.reductions)
    if selects:
        assert outcome.bytes_read >= compiled.plan.reads
    else:
        assert outcome.bytes_read == compiled.plan.reads
    assert outcome.bytes_written == compiled.plan.writes


@pytest.mark.parametrize("recipe", RECIPES)
def test_predicted_is_measured(recipe: str, folders: dict[str, Path], tmp_path: Path) -> None:
    check(compile_folders(recipe, **folders), tmp_path / "out")


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("recipe", RECIPES[:9])
def test_predicted_is_measured_over_many_blocks(recipe: str, lanes: int, tmp_path: Path) -> None:
    lets = "".join(f'let {label} = model("{path}")\n' for label, path in large(tmp_path).items())
    check(mergec.compile(lets + recipe, device="cpu", lanes=lanes), tmp_path / "out")


def test_a_budget_is_met_or_refused(tmp_path: Path) -> None:
    lets = "".join(f'let {label} = model("{path}")\n' for label, path in large(tmp_path).items())
    recipe = lets + "* = ties(a, b, density=0.5)"
    free = mergec.compile(recipe, device="cpu", lanes=4)
    with pytest.raises(mergec.MergecError, match="E0317"):
        mergec.compile(recipe, device="cpu", lanes=4, memory=1 << 16)
    tight = mergec.compile(recipe, device="cpu", lanes=4, memory=free.plan.peak_host // 2)
    assert tight.plan.peak_host <= free.plan.peak_host // 2
    check(tight, tmp_path / "tight")
    check(free, tmp_path / "free")
    made, wanted = (load_file(tmp_path / name / "model.safetensors") for name in ("tight", "free"))
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)


def test_a_single_file(folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = "".join(f'let {label} = model("{path}")\n' for label, path in folders.items()) + RECIPES[3]
    single = mergec.compile(recipe, device="cpu", single=True)
    check(single, tmp_path / "out.safetensors")
    mergec.compile(recipe, device="cpu").run(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("out.")] == ["out.safetensors"]
    made, wanted = load_file(tmp_path / "out.safetensors"), checkpoints.load(tmp_path / "out")
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in wanted.items())


def test_an_existing_target_is_kept_without_force(folders: dict[str, Path], tmp_path: Path) -> None:
    compile_folders("* = base", **{"base": folders["base"]}).run(tmp_path / "out")
    compiled = compile_folders("* = 2*base", **{"base": folders["base"]})
    with pytest.raises(mergec.MergecError, match="E0601"):
        compiled.run(tmp_path / "out")
    compiled.run(tmp_path / "out", force=True)


# --- compiling -----------------------------------------------------------------------------------


def sparse(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], int]]) -> None:
    """A weight file of which only the header is on the disk; the rest is a hole."""
    header, end = {}, 0
    for name, (dtype, shape, nbytes) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
        end += nbytes
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
    os.truncate(path, 8 + len(raw) + end)


def test_no_weight_is_read_when_compiling(tmp_path: Path) -> None:
    """Reading the half terabyte that each of these files claims to hold would take minutes."""
    shape = (1 << 19, 1 << 19)
    for label in ("base", "a"):
        sparse(tmp_path / f"{label}.safetensors", {"x": ("BF16", shape, 2 << 38), "y": ("F32", (7,), 28)})
    lets = "".join(f'let {label} = model("{tmp_path}/{label}.safetensors")\n' for label in ("base", "a"))
    compiled = mergec.compile(lets + "* = ties(a, density=0.3)", device="cpu")
    assert compiled.parameters == (1 << 38) + 7
    assert compiled.plan.peak_host < 1 << 30


def test_torch_is_not_imported_when_compiling(folders: dict[str, Path]) -> None:
    lets = "".join(f'let {label} = model("{path}")\n' for label, path in folders.items())
    program = f"""
import sys, mergec
compiled = mergec.compile({lets + RECIPES[3]!r}, device="cpu")
assert compiled.plan.steps
assert not {{"torch", "numpy", "safetensors"}} & set(sys.modules), "too much was imported"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("option", ["--check", "--explain"])
def test_torch_is_not_imported_by_the_command(option: str, folders: dict[str, Path], tmp_path: Path) -> None:
    lets = "".join(f'let {label} = model("{path}")\n' for label, path in folders.items())
    (tmp_path / "recipe.mrg").write_text(lets + RECIPES[3] + "\n", "utf-8")
    program = f"""
import sys
from mergec.cli.main import main
sys.argv = ["mergec", {option!r}, {str(tmp_path / "recipe.mrg")!r}]
try:
    code = main()
except SystemExit as stop:
    code = stop.code
assert code in (0, None), code
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, stdout=subprocess.DEVNULL)
