#!/usr/bin/env python3
"""What each way of batching small and medium tensors gains: the same merge with it and without.

    python benchmarks/batching.py [--work FOLDER] [--repeat N] [--only NAME ...]

The thresholds stand in `runtime/stream/batching.py`, `runtime/native/batch.py` and
`compiler/plan/concurrency.py`. Each is set to the values below in a process of its own, one after
the other. Printed are wall clock and CPU seconds of the quickest run, and their ratios to those of
mergec's own value, which is marked. Models are those of `small.py`, and for tensors of medium size
two hundred of `--medium` elements. Linux only.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import small
from make_models import bf16
from measure import Sample, measure

CHILD = """
import sys
from mergec.cli.main import process
import mergec.{module} as module
assert hasattr(module, "{name}")
module.{name} = {value}
sys.exit(process())
"""


@dataclass(frozen=True, slots=True)
class Way:
    """A threshold: where it is, what it is set to, and the merge that shows it; the first value
    switches it off."""

    module: str
    name: str
    values: Sequence[int]
    recipe: str
    medium: bool = False


TIES = small.RECIPES["ties"]
HALF = f"{small.RECIPES['linear']}\nlayers[*].self_attn = a\n"
WAYS = (
    Way("runtime.stream.batching", "SMALL", (0, 1 << 10, 1 << 16), TIES),
    Way("runtime.stream.batching", "SMALL_COPY", (0, 1 << 10, 1 << 17, 1 << 20), HALF),
    Way("runtime.native.batch", "MOST", (1, 8, 32, 128, 512), TIES),
    Way("runtime.native.batch", "REMEMBERED", (0, 256), TIES),
    Way("compiler.plan.concurrency", "MEDIUM", (0, 1 << 24), TIES, medium=True),
)


def make_medium(folder: Path, tensors: int, elements: int) -> None:
    """Three models of some tensors of one size."""
    every = [f"model.layers.{k}.mlp.up_proj.weight" for k in range(tensors)]
    for number, label in enumerate(small.CHECKPOINTS):
        if (folder / label).exists():
            continue
        (folder / label).mkdir(parents=True)
        values = np.random.default_rng(number).standard_normal((tensors, elements), np.float32)
        small.write(folder / label / "model.safetensors", every, bf16(values))


def merge(folder: Path, way: Way, value: int) -> Sample:
    lets = [f'let {label} = model("./{label}")' for label in small.CHECKPOINTS]
    (folder / "r.mrg").write_text("\n".join([*lets, "output(like=base)", way.recipe, ""]))
    shutil.rmtree(folder / "out", ignore_errors=True)
    code = CHILD.format(module=way.module, name=way.name, value=value)
    return measure([sys.executable, "-c", code, "--quiet", "r.mrg", "-o", "out"], cwd=folder, log=folder / "log")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "out" / "small-tensors")
    parser.add_argument("--layers", type=int, default=400)
    parser.add_argument("--medium", type=int, default=1 << 18, help="elements of a tensor of medium size")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, in turn, of which the quickest counts")
    parser.add_argument("--only", nargs="+", choices=[way.name for way in WAYS], default=[way.name for way in WAYS])
    given = parser.parse_args()
    few, medium = given.work / f"{given.layers}-1", given.work / f"medium-{given.medium}"
    small.make(few, given.layers, 1)
    make_medium(medium, 200, given.medium)
    print(f"{'threshold':12} {'value':>10} {'wall s':>7} {'cpu s':>7} {'wall':>6} {'cpu':>6}")
    for way in (way for way in WAYS if way.name in given.only):
        folder = medium if way.medium else few
        samples: dict[int, list[Sample]] = {value: [] for value in way.values}
        for _ in range(given.repeat):
            for value in way.values:
                samples[value].append(merge(folder, way, value))
        wall = {value: min(s.wall for s in runs) for value, runs in samples.items()}
        cpu = {value: min(s.cpu for s in runs) for value, runs in samples.items()}
        ours = getattr(importlib.import_module(f"mergec.{way.module}"), way.name)
        for value in way.values:
            mark = " *" if value == ours else ""
            ratios = f"{wall[value] / wall[ours]:>6.2f} {cpu[value] / cpu[ours]:>6.2f}"
            print(f"{way.name:12} {value:>10,} {wall[value]:>7.2f} {cpu[value]:>7.2f} {ratios}{mark}", flush=True)


if __name__ == "__main__":
    main()
