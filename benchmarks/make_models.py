#!/usr/bin/env python3
"""Make synthetic Llama-shaped bf16 checkpoints: `base`, and `a` and `b` derived from it.

    python benchmarks/make_models.py --preset 1b benchmarks/out/1b

Each checkpoint is a folder in Hugging Face layout with tied embeddings and sharded weights.
Matrices of `base` are drawn from N(0, 0.02²), norms lie near 1; `a` and `b` add a heavy-tailed
delta, as fine-tuning does. No model class is built: tensors are drawn in pieces and go straight to
their offset, so the 1b preset needs a few hundred megabytes of memory. A piece's random numbers
depend on its tensor, its position and its checkpoint alone, so the bytes do not depend on the
number of threads or on the shard size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

CHECKPOINTS = ("base", "a", "b")
PIECE = 1 << 22
"""Elements drawn at a time."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Hyperparameters of a Llama decoder; `shard` is the most bytes a weight file may hold."""

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    shard: int

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every stored tensor, in the order of the module tree. There is no head:
        it is tied."""
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = {
            "self_attn.q_proj": (queries, self.hidden),
            "self_attn.k_proj": (keys, self.hidden),
            "self_attn.v_proj": (keys, self.hidden),
            "self_attn.o_proj": (self.hidden, queries),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
            "input_layernorm": (self.hidden,),
            "post_attention_layernorm": (self.hidden,),
        }
        for index in range(self.layers):
            for name, shape in layer.items():
                yield f"model.layers.{index}.{name}.weight", shape
        yield "model.norm.weight", (self.hidden,)

    def config(self) -> dict[str, object]:
        """What goes into config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-05,
            "rope_theta": 500000.0,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "bos_token_id": 1,
            "eos_token_id": 2,
        }


PRESETS = {
    "tiny": Shape(16, 32, 96, 512, 4, 2, 8, shard=200_000),
    "small": Shape(16, 768, 2048, 32_000, 12, 4, 64, shard=100_000_000),
    "1b": Shape(16, 2048, 8192, 128_256, 32, 8, 64, shard=1_000_000_000),
}
"""`1b` has the shapes of Llama-3.2-1B: 1,235,814,400 parameters, 2.47 GB per checkpoint. All have
its 16 layers."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor and the byte of its shard's data section at which it begins."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def shards(shape: Shape) -> list[list[Placed]]:
    """The tensors split into files of at most `shape.shard` bytes; a larger tensor has a file of
    its own."""
    files: list[list[Placed]] = [[]]
    filled = 0
    for name, dims in shape.tensors():
        nbytes = 2 * math.prod(dims)
        if files[-1] and filled + nbytes > shape.shard:
            files.append([])
            filled = 0
        files[-1].append(Placed(name, dims, filled))
        filled += nbytes
    return files


def header(placed: list[Placed]) -> bytes:
    """The length and the JSON header of a safetensors file with these bf16 tensors."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for t in placed:
        entries[t.name] = {"dtype": "BF16", "shape": t.shape, "data_offsets": [t.start, t.start + 2 * t.numel]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Finite float32 values rounded to nearest even bf16, as bit patterns."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def generator(*key: object) -> np.random.Generator:
    """A random generator for this key; equal keys give equal streams."""
    digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))


def draw(tensor: Placed, piece: int, delta: float, seed: int) -> dict[str, npt.NDArray[np.uint16]]:
    """Piece number `piece` of a tensor in every checkpoint, as bf16 bit patterns."""
    count = min(PIECE, tensor.numel - piece * PIECE)
    base = generator(seed, tensor.name, piece, "base").standard_normal(count, dtype=np.float32)
    base *= np.float32(0.02)
    if len(tensor.shape) == 1:
        base += np.float32(1)
    drawn = {"base": bf16(base)}
    rounded = (drawn["base"].astype(np.uint32) << np.uint32(16)).view(np.float32)
    for name in CHECKPOINTS[1:]:
        random = generator(seed, tensor.name, piece, name)
        change = random.standard_normal(count, dtype=np.float32)
        change *= np.exp(random.standard_normal(count, dtype=np.float32))  # log-normal scale: heavy tails
        change *= np.float32(delta)
        change += rounded
        drawn[name] = bf16(change)
    return drawn


def write_weights(shape: Shape, out: Path, delta: float, seed: int, threads: int) -> None:
    """Write weight files and, where there are several, their index, for every checkpoint."""
    files = shards(shape)
    names = [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
    if len(files) == 1:
        names = ["model.safetensors"]
    weight_map: dict[str, str] = {}
    total = 0
    for filename, placed in zip(names, files, strict=True):
        head = header(placed)
        handles = {
            name: os.open(out / name / filename, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) for name in CHECKPOINTS
        }
        for handle in handles.values():
            os.pwrite(handle, head, 0)

        def write(job: tuple[Placed, int], handles: dict[str, int] = handles, origin: int = len(head)) -> None:
            tensor, piece = job
            for name, values in draw(tensor, piece, delta, seed).items():
                os.pwrite(handles[name], values.tobytes(), origin + tensor.start + 2 * piece * PIECE)

        with ThreadPoolExecutor(threads) as pool:
            jobs = [(t, piece) for t in placed for piece in range(-(-t.numel // PIECE))]
            for _ in pool.map(write, jobs):
                pass
        for handle in handles.values():
            os.close(handle)
        weight_map.update((t.name, filename) for t in placed)
        total += sum(2 * t.numel for t in placed)
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        for name in CHECKPOINTS:
            (out / name / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def make(shape: Shape, out: Path, *, delta: float = 1e-3, seed: int = 1, threads: int | None = None) -> None:
    """Write the three checkpoints below `out`.

    config.json comes last, so a folder that has one is complete.
    """
    for name in CHECKPOINTS:
        (out / name).mkdir(parents=True, exist_ok=True)
        (out / name / "config.json").unlink(missing_ok=True)
    write_weights(shape, out, delta, seed, threads or os.cpu_count() or 1)
    for name in CHECKPOINTS:
        generation = {"bos_token_id": 1, "eos_token_id": 2}
        (out / name / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
        (out / name / "config.json").write_text(json.dumps(shape.config(), indent=2) + "\n")


def complete(out: Path) -> bool:
    """Whether `make` has finished below `out`."""
    return all((out / name / "config.json").exists() for name in CHECKPOINTS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("out", type=Path, help="folder that gets the folders base, a and b")
    parser.add_argument("--preset", choices=PRESETS, default="1b")
    parser.add_argument("--delta", type=float, default=1e-3, help="scale of what a and b add to base")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    make(PRESETS[args.preset], args.out, delta=args.delta, seed=args.seed, threads=args.threads)


if __name__ == "__main__":
    main()
