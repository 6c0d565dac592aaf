#!/usr/bin/env python3
"""How far merged weights are from the exact ones, in units in the last place of the output's dtype.

    python benchmarks/numerics.py                                          # mergec alone
    python benchmarks/numerics.py --peer PATH/TO/mergekit-yaml             # compared with mergekit
    python benchmarks/numerics.py --peer PATH/TO/mergekit-yaml --write   # into docs/methods.md
    python benchmarks/numerics.py --methods ties,slerp

Inputs are synthetic: a Llama of one layer with a million weights, base N(0, 0.02²), three models
that add heavy-tailed deltas of scale 1e-3, in bfloat16 and in float16, and outputs of the same
dtype. The exact value is that of the naive float64 references of tests/. A correctly rounded result
is at most 0.5 units off.

Elements are skipped where more than one outcome is right: where a threshold falls between equal
magnitudes (equal in the output's dtype, in which mergekit computes), and where a sum that elects a
sign is zero but for float32 rounding. Where terms cancel, a hundredth of the inputs' summed
magnitudes stands in for a value smaller than that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mergec
import numpy as np
import numpy.typing as npt
import torch
from numerics_cases import CASES, MODELS, Case, unambiguous
from reference import deltas
from safetensors.torch import load_file, save_file

Array = npt.NDArray[np.float64]
Tensors = Mapping[str, torch.Tensor]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"

DTYPES: Mapping[str, tuple[int, int]] = {"bfloat16": (8, -126), "float16": (11, -14)}
"""Bits of the significand, and the least exponent of a normal number."""

HIDDEN, INTERMEDIATE, VOCABULARY = 256, 688, 1024
SHAPES: Mapping[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
    "model.layers.0.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
    "model.layers.0.self_attn.k_proj.weight": (HIDDEN, HIDDEN),
    "model.layers.0.self_attn.v_proj.weight": (HIDDEN, HIDDEN),
    "model.layers.0.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
    "model.layers.0.mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
    "model.layers.0.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
    "model.layers.0.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
    "model.layers.0.input_layernorm.weight": (HIDDEN,),
    "model.layers.0.post_attention_layernorm.weight": (HIDDEN,),
    "model.norm.weight": (HIDDEN,),
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
CANCELLED = 0.01
"""Where terms cancel to less than this share of the inputs' sizes, units are those of a number of
that share."""

FREEDOM = 4
"""Of Student's t, from which deltas are drawn: their largest elements are far out, as those of
fine-tunes are."""


@dataclass(frozen=True, slots=True)
class Errors:
    """In units in the last place. `beyond` is the worst that is left after 0.5 and float32 rounding
    of the terms."""

    mean: float
    high: float
    worst: float
    beyond: float

    def __str__(self) -> str:
        return f"{shown(self.mean)} / {shown(self.high)} / {shown(self.worst)}"


# --- inputs --------------------------------------------------------------------------------------


def make_models(folder: Path, dtype: str) -> None:
    """Writes `base`, `a`, `b` and `c` as folders in Hugging Face layout."""
    random = np.random.default_rng(0)
    base = {name: random.standard_normal(shape) * 0.02 for name, shape in SHAPES.items()}
    for name, shape in SHAPES.items():
        base[name] += 1.0 if len(shape) == 1 else 0.0
    store(folder / "base", base, dtype)
    for model in MODELS:
        moved = {name: x + 1e-3 * random.standard_t(FREEDOM, x.shape) for name, x in base.items()}
        store(folder / model, moved, dtype)


def store(folder: Path, tensors: Mapping[str, Array], dtype: str) -> None:
    folder.mkdir()
    as_stored = {name: torch.from_numpy(x).to(getattr(torch, dtype)) for name, x in tensors.items()}
    save_file(as_stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**CONFIG, "torch_dtype": dtype}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def load(folder: Path) -> dict[str, torch.Tensor]:
    return {name: x for file in sorted(folder.glob("*.safetensors")) for name, x in load_file(file).items()}


def wide(tensors: Tensors) -> dict[str, Array]:
    return {name: tensor.to(torch.float64).numpy() for name, tensor in tensors.items()}


# --- both programs -------------------------------------------------------------------------------


def merge(case: Case, folder: Path, compute: str) -> Tensors:
    lets = "".join(f'let {name} = model("{folder / name}")\n' for name in ("base", *MODELS))
    out = folder / "out-mergec"
    mergec.compile(f'{lets}output(like=base, compute="{compute}")\n* = {case.call}\n', device="cpu").run(
        out, force=True
    )
    return load(out)


DRIVER = """
import sys
from mergekit.scripts.run_yaml import main
for number in range(int(sys.argv[1])):
    main([f"peer-{number}.yml", f"out-{number}", "--quiet", "--no-copy-tokenizer"], standalone_mode=False)
"""
"""What the program does, again and again in one process, as its start takes longer than such a
merge."""


def merge_with_peer(configurations: Sequence[Mapping[str, Any]], folder: Path, program: Path) -> list[Tensors]:
    """What mergekit makes of each. Raises SystemExit with its complaint."""
    for number, configuration in enumerate(configurations):
        # a configuration is YAML, and so JSON
        (folder / f"peer-{number}.yml").write_text(json.dumps(configuration), "utf-8")
    command = [str(program.with_name("python")), "-c", DRIVER, str(len(configurations))]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{program.name} failed:\n{run.stderr[-2000:]}")
    return [load(folder / f"out-{number}") for number in range(len(configurations))]


# --- errors --------------------------------------------------------------------------------------


def units(exact: Array, dtype: str) -> Array:
    """The distance from each number to its neighbours of the dtype."""
    bits, least = DTYPES[dtype]
    _, exponent = np.frexp(exact)
    return np.asarray(np.ldexp(1.0, np.maximum(exponent - 1, least) - bits + 1))


class Exact:
    """The exact outcome of a case, and which of its elements have only one right outcome, for all
    tensors concatenated."""

    def __init__(self, case: Case, inputs: Mapping[str, Mapping[str, Array]], dtype: str) -> None:
        torch_dtype = getattr(torch, dtype)

        def rounded(x: Array) -> Array:
            return np.asarray(torch.from_numpy(x).to(torch_dtype).to(torch.float64).numpy())

        values, sizes, compared = [], [], []
        for name in SHAPES:
            models, base = [inputs[m][name] for m in MODELS], inputs["base"][name]
            found = case.wanted(models, base, name)
            clear = found.sure
            if case.masks is not None:
                clear = clear & unambiguous(deltas(models, base), case.masks, rounded)
            values.append(found.value.ravel())
            sizes.append((np.abs(base) + sum(np.abs(x) for x in models)).ravel())
            compared.append(clear.ravel())
        self.dtype = dtype
        self.value, self.size = np.concatenate(values), np.concatenate(sizes)
        self.compared = np.concatenate(compared)

    def errors(self, made: Tensors) -> Errors:
        flat = np.concatenate([made[name].to(torch.float64).numpy().ravel() for name in SHAPES])
        unit = units(np.maximum(np.abs(self.value), CANCELLED * self.size), self.dtype)
        error = (np.abs(flat - self.value) / unit)[self.compared]
        # of a handful of float32 operations on numbers of that size
        noise = (4 * 2.0**-24 * self.size / unit)[self.compared]
        return Errors(
            float(error.mean()),
            float(np.quantile(error, 0.999)),
            float(error.max()),
            float(np.max(error - 0.5 - noise, initial=0.0)),
        )


# --- the page ------------------------------------------------------------------------------------


def shown(x: float) -> str:
    return f"{x:.2f}" if x < 100 else f"{x:,.0f}"


@dataclass(frozen=True, slots=True)
class Row:
    case: Case
    compared: float
    ours: Errors
    peer: Errors | None
    peer_float32: Errors | None

    def __str__(self) -> str:
        kept = f"{self.case.name} ({self.compared:.1%} compared)"
        return f"{kept}: {self.ours}, {self.ours.beyond:.2f} beyond; mergekit {self.peer}, {self.peer_float32}"


def table(rows: Sequence[Row], peered: bool) -> str:
    heads = ["method", "mergec"]
    if peered:
        heads += ["mergekit", "mergekit, `dtype: float32`"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        cells = [row.case.name, str(row.ours)]
        if peered:
            cells += ["–" if e is None else str(e) for e in (row.peer, row.peer_float32)]
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(dtype: str, text: str) -> None:
    """Replaces what is between the markers of a dtype in docs/methods.md."""
    begin, finish = f"<!-- numerics {dtype} -->\n", f"<!-- end numerics {dtype} -->"
    page = PAGE.read_text("utf-8")
    before, start, rest = page.partition(begin)
    _, end, after = rest.partition(finish)
    if not start or not end:
        raise SystemExit(f"{PAGE.name} has no `{begin.strip()}` with its end")
    PAGE.write_text(f"{before}{start}{text}\n{end}{after}", "utf-8")


def measure(cases: Sequence[Case], dtype: str, compute: str, program: Path | None) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_models(folder, dtype)
        inputs = {m: wide(load(folder / m)) for m in ("base", *MODELS)}
        peers: dict[str, Tensors] = {}
        if program is not None:
            usual, wider = {"dtype": dtype}, {"dtype": "float32", "out_dtype": dtype}
            runs = [(c, d) for c in cases if c.peer is not None for d in (usual, wider)]
            made = merge_with_peer([{**(c.peer or {}), **d} for c, d in runs], folder, program)
            peers = {f"{c.name} {d['dtype']}": tensors for (c, d), tensors in zip(runs, made, strict=True)}
        rows = []
        for case in cases:
            exact = Exact(case, inputs, dtype)
            others = [peers.get(f"{case.name} {d}") for d in (dtype, "float32")]
            peer, wide_peer = (None if tensors is None else exact.errors(tensors) for tensors in others)
            rows.append(
                Row(case, float(exact.compared.mean()), exact.errors(merge(case, folder, compute)), peer, wide_peer)
            )
            print(f"{dtype} {rows[-1]}", flush=True)
        return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peer", type=Path, help="mergekit's `mergekit-yaml`")
    parser.add_argument("--methods", help="comma-separated names of cases; all by default")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="bfloat16,float16")
    parser.add_argument("--compute", default="float32", choices=("float32", "float64"), help="dtype of arithmetic")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/methods.md")
    options = parser.parse_args()
    wanted = None if options.methods is None else set(options.methods.split(","))
    cases = [c for c in CASES if wanted is None or c.name.partition(",")[0] in wanted]
    program = None if options.peer is None else options.peer.resolve()
    for dtype in options.dtypes.split(","):
        text = table(measure(cases, dtype, options.compute, program), program is not None)
        print(f"\n{dtype}, mean / 99.9th percentile / maximum:\n\n{text}\n", flush=True)
        if options.write:
            write(dtype if options.compute == "float32" else f"{dtype} {options.compute}", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
