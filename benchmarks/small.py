#!/usr/bin/env python3
"""Merges of very many small tensors, by whole processes: the fixed cost per tensor shows here.

    python benchmarks/small.py [--work FOLDER] [--layers N] [--shards N] [--recipes NAME …]
                               [--repeat N]
    python benchmarks/small.py --check              # no timing: are the numbers right?

Three models of twelve tensors per layer and two others, of 1,024 bf16 elements each; 1,600 layers
make 19,202. Printed: wall clock, CPU seconds, peak resident memory, and microseconds of CPU for
each tensor, less what a merge of one layer takes. Linux only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
from check import check_copy, check_dare_ties, check_elementwise, load
from make_models import bf16
from measure import Sample, measure

CHECKPOINTS = ("base", "a", "b")
ELEMENTS = 1024
WEIGHTS = "weight=[0.5, 0.25]"
RECIPES = {
    "copy": "* = a",
    "linear": f"* = linear(a, b, {WEIGHTS})",
    "slerp": "* = slerp(a, b, t=0.4)",
    "ties": f"* = ties(a, b, base=base, density=0.5, {WEIGHTS})",
    "dare_ties": f"* = dare_ties(a, b, base=base, density=0.5, {WEIGHTS})",
}
MATRICES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MATRICES += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
VECTORS = ("self_attn.q_norm", "self_attn.k_norm", "input_layernorm", "post_attention_layernorm", "scale")


def names(layers: int) -> list[str]:
    parts = [f"{part}.weight" for part in (*MATRICES, *VECTORS)]
    inner = [f"model.layers.{layer}.{part}" for layer in range(layers) for part in parts]
    return ["model.embed_tokens.weight", *inner, "model.norm.weight"]


def shape(name: str) -> list[int]:
    return [32, 32] if name.endswith("embed_tokens.weight") or "proj" in name else [ELEMENTS]


def make(folder: Path, layers: int, shards: int) -> int:
    """Writes the models where they are not there yet, and gives the number of tensors of each."""
    every = names(layers)
    base = np.random.default_rng(0).standard_normal((len(every), ELEMENTS), np.float32)
    for number, label in enumerate(CHECKPOINTS):
        if (folder / label / "config.json").exists():
            continue
        (folder / label).mkdir(parents=True, exist_ok=True)
        delta = np.random.default_rng(number).standard_normal(base.shape, np.float32)
        # signs stay, so that no sum is so near to zero that rounding shows
        values = bf16(base * (1 + np.float32(0.02) * delta * min(number, 1)))
        each, listed = -(-len(every) // shards), {}
        for k in range(shards):
            file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
            rows = slice(k * each, (k + 1) * each)
            listed |= dict.fromkeys(every[rows], file)
            write(folder / label / file, every[rows], values[rows])
        index = {"metadata": {"total_size": values.nbytes}, "weight_map": listed}
        (folder / label / "model.safetensors.index.json").write_text(json.dumps(index))
        config = {"model_type": "tiny_tensors", "num_hidden_layers": layers, "torch_dtype": "bfloat16"}
        (folder / label / "config.json").write_text(json.dumps(config))
    return len(every)


def write(path: Path, every: list[str], values: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> None:
    elements = values.shape[1]
    nbytes = 2 * elements
    header = {
        name: {
            "dtype": "BF16",
            "shape": shape(name) if elements == ELEMENTS else [elements],
            "data_offsets": [k * nbytes, (k + 1) * nbytes],
        }
        for k, name in enumerate(every)
    }
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + values.tobytes())


def merge(folder: Path, name: str, repeat: int) -> Sample:
    """The run of least CPU time; what it wrote stays in `out`."""
    lets = [f'let {label} = model("./{label}")' for label in CHECKPOINTS]
    (folder / f"{name}.mrg").write_text("\n".join([*lets, "output(like=base)", RECIPES[name], ""]))
    samples = []
    for _ in range(repeat):
        shutil.rmtree(folder / "out", ignore_errors=True)
        command = [sys.executable, "-m", "mergec", "--quiet", f"{name}.mrg", "-o", "out"]
        samples.append(measure(command, cwd=folder, log=folder / "log"))
    return min(samples, key=lambda sample: sample.cpu)


def check(folder: Path, recipes: list[str]) -> int:
    """Merges sixty layers by every recipe and compares with a reference; how many are wrong."""
    make(folder, 60, 3)
    models = [load(folder / label) for label in CHECKPOINTS]
    bad = 0
    for name in recipes:
        merge(folder, name, 1)
        out = load(folder / "out")
        if name == "copy":
            found = check_copy(out, models[1])
        else:
            found = check_dare_ties(out, *models) if name == "dare_ties" else check_elementwise(name, out, *models)
            found += ["tensors are missing"] * (out.keys() != models[0].keys())
        bad += bool(found)
        print(f"{name:12} " + ("right" if not found else "WRONG: " + "; ".join(found[:5])), flush=True)
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "out" / "small-tensors")
    parser.add_argument("--layers", type=int, default=1600)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, of which the quickest counts")
    parser.add_argument("--check", action="store_true", help="no timing: are the numbers right?")
    given = parser.parse_args()
    if given.check:
        sys.exit(check(given.work / "check", given.recipes))
    folder = given.work / f"{given.layers}-{given.shards}"
    count = make(folder, given.layers, given.shards)
    less = make(given.work / "1-1", 1, 1)
    print(f"{'recipe':10} {'tensors':>8} {'wall s':>7} {'cpu s':>7} {'peak MiB':>9} {'us/tensor':>10}")
    for name in given.recipes:
        start = merge(given.work / "1-1", name, given.repeat)
        took = merge(folder, name, given.repeat)
        each = 1e6 * (took.cpu - start.cpu) / (count - less)
        mebibytes = took.resident / 2**20
        print(f"{name:10} {count:>8,} {took.wall:>7.2f} {took.cpu:>7.2f} {mebibytes:>9,.0f} {each:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
