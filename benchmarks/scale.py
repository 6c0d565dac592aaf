#!/usr/bin/env python3
"""Compile time at scale: `mergec --check` of three checkpoints of up to 100,000 tensors each, by
whole processes.

    python benchmarks/scale.py [--work FOLDER] [--sizes 1k 10k 46k 92k] [--repeat N] [-- MERGEC
    ARGUMENTS]

The checkpoints have the names and shapes of DeepSeek-V3 in bfloat16 (61 layers and one for the
prediction of further tokens, 256 experts, 163 shards: `46k`), smaller numbers of layers and
experts, and twice as many layers (`92k`). Weight files hold a header and a hole of the right size
with some bytes for each tensor, so they take little disk; nothing but headers and the first bytes
of some tensors is read. Printed: wall clock, CPU seconds, peak resident memory, and milliseconds of
CPU for each tensor of the output, without start-up; the last should be flat. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import Sample, measure

CHECKPOINTS = ("base", "a", "b")

RECIPES = {
    "ties": "* = ties(a, b, base=base, density=0.5)",
    "linear": "* = linear(a, b, weight=0.5)",
    "dare_ties": "* = dare_ties(a, b, base=base, density=0.5)",
    "by_depth": '* = linear(a, b, weight=[curve([0, 1]), 1])\n"model.layers.*.mlp.*" = slerp(a, b, t=depth)',
}
"""What may follow the three lets, by name; `ties` is what the figures in the table of this project
are of."""

SIZES_OF = {"BF16": 2, "F32": 4}

Tensor = tuple[str, str, tuple[int, ...]]
"""Name, dtype and shape."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How many layers, dense ones among them, experts in each of the others, and weight files."""

    layers: int
    dense: int
    experts: int
    shards: int

    def tensors(self) -> Iterator[Tensor]:
        """Every stored tensor, in the order of the module tree."""
        yield "model.embed_tokens.weight", "BF16", (129280, 7168)
        for layer in range(self.layers):
            yield from self.layer(layer)
        yield from self.layer(self.layers)
        extra = f"model.layers.{self.layers}"
        yield f"{extra}.embed_tokens.weight", "BF16", (129280, 7168)
        yield f"{extra}.enorm.weight", "BF16", (7168,)
        yield f"{extra}.hnorm.weight", "BF16", (7168,)
        yield f"{extra}.eh_proj.weight", "BF16", (7168, 14336)
        yield f"{extra}.shared_head.norm.weight", "BF16", (7168,)
        yield f"{extra}.shared_head.head.weight", "BF16", (129280, 7168)
        yield "model.norm.weight", "BF16", (7168,)
        yield "lm_head.weight", "BF16", (129280, 7168)

    def layer(self, number: int) -> Iterator[Tensor]:
        head = f"model.layers.{number}"
        for part, shape in {
            "q_a_proj": (1536, 7168),
            "q_b_proj": (24576, 1536),
            "kv_a_proj_with_mqa": (576, 7168),
            "kv_b_proj": (32768, 512),
            "o_proj": (7168, 16384),
        }.items():
            yield f"{head}.self_attn.{part}.weight", "BF16", shape
        yield f"{head}.self_attn.q_a_layernorm.weight", "BF16", (1536,)
        yield f"{head}.self_attn.kv_a_layernorm.weight", "BF16", (512,)
        if number < self.dense:
            yield from feed_forward(f"{head}.mlp", 18432)
        else:
            yield f"{head}.mlp.gate.weight", "BF16", (256, 7168)
            yield f"{head}.mlp.gate.e_score_correction_bias", "F32", (256,)
            yield from feed_forward(f"{head}.mlp.shared_experts", 2048)
            for expert in range(self.experts):
                yield from feed_forward(f"{head}.mlp.experts.{expert}", 2048)
        yield f"{head}.input_layernorm.weight", "BF16", (7168,)
        yield f"{head}.post_attention_layernorm.weight", "BF16", (7168,)

    def config(self) -> dict[str, object]:
        return {
            "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3",
            "num_hidden_layers": self.layers,
            "num_nextn_predict_layers": 1,
            "first_k_dense_replace": self.dense,
            "n_routed_experts": self.experts,
            "hidden_size": 7168,
            "vocab_size": 129280,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }


def feed_forward(module: str, inner: int) -> Iterator[Tensor]:
    yield f"{module}.gate_proj.weight", "BF16", (inner, 7168)
    yield f"{module}.up_proj.weight", "BF16", (inner, 7168)
    yield f"{module}.down_proj.weight", "BF16", (7168, inner)


SHAPES = {
    "1k": Shape(14, 3, 8, 2),
    "10k": Shape(30, 3, 54, 18),
    "46k": Shape(61, 3, 256, 163),
    "92k": Shape(120, 3, 256, 326),
}


def make(folder: Path, shape: Shape) -> int:
    """Writes the checkpoints where they are not there yet, and gives the number of tensors of
    each."""
    tensors = list(shape.tensors())
    for name in CHECKPOINTS:
        if not (folder / name / "config.json").exists():
            checkpoint(folder / name, tensors, shape)
    return len(tensors)


def checkpoint(folder: Path, tensors: Sequence[Tensor], shape: Shape) -> None:
    """A sharded checkpoint whose weight files are headers before holes; config.json is written
    last."""
    folder.mkdir(parents=True, exist_ok=True)
    listed: dict[str, str] = {}
    each = -(-len(tensors) // shape.shards)
    total = 0
    for k in range(shape.shards):
        file = f"model-{k + 1:05d}-of-{shape.shards:06d}.safetensors"
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        firsts: list[int] = []
        for name, dtype, axes in tensors[k * each : (k + 1) * each]:
            nbytes = SIZES_OF[dtype]
            for n in axes:
                nbytes *= n
            entries[name] = {"dtype": dtype, "shape": list(axes), "data_offsets": [offset, offset + nbytes]}
            firsts.append(offset)
            offset += nbytes
            listed[name] = file
        raw = json.dumps(entries, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)
        with (folder / file).open("wb") as sink:
            sink.write(struct.pack("<Q", len(raw)) + raw)
            sink.truncate(8 + len(raw) + offset)
            for number, first in enumerate(firsts, k * each + 1):
                # no two tensors are equal, as in real checkpoints, where that shows in the first
                # bytes
                sink.seek(8 + len(raw) + first)
                sink.write(struct.pack("<I", number))
        total += offset
    index = {"metadata": {"total_size": total}, "weight_map": listed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "config.json").write_text(json.dumps(shape.config(), indent=2))


def recipe(folder: Path, name: str) -> Path:
    path = folder / f"{name}.mrg"
    lets = [f'let {model} = model("./{model}")' for model in CHECKPOINTS]
    path.write_text("\n".join([*lets, "output(like=base)", RECIPES[name], ""]))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "out" / "scale")
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["ties"])
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, of which the quickest counts")
    parser.add_argument("--look", nargs="+", default=["--check"], help="arguments of mergec beside the recipe")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mergec", *given.look]
    log = given.work / "log"
    print(f"{'recipe':10} {'size':>5} {'tensors':>8} {'wall s':>7} {'cpu s':>7} {'peak MiB':>9} {'ms/tensor':>10}")
    for name in given.recipes:
        start = quickest([*command, str(tiny(given.work, name))], log, given.repeat)
        for size in given.sizes:
            folder = given.work / size
            count = make(folder, SHAPES[size])
            took = quickest([*command, str(recipe(folder, name))], log, given.repeat)
            each = 1000 * (took.cpu - start.cpu) / count
            print(
                f"{name:10} {size:>5} {count:>8,} {took.wall:>7.2f} {took.cpu:>7.2f} {took.resident / 2**20:>9,.0f}"
                f" {each:>10.4f}",
                flush=True,
            )


def tiny(work: Path, name: str) -> Path:
    """The recipe over checkpoints of next to nothing: what is left is start-up."""
    folder = work / "tiny"
    make(folder, Shape(4, 3, 1, 1))
    return recipe(folder, name)


def quickest(command: Sequence[str], log: Path, repeat: int) -> Sample:
    samples = [measure(command, cwd=Path(os.getcwd()), log=log) for _ in range(repeat)]
    return min(samples, key=lambda sample: sample.cpu)


if __name__ == "__main__":
    main()
