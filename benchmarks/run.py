#!/usr/bin/env python3
"""Time mergec and the newest mergekit in turn on the same checkpoints, and print a Markdown table.

    python benchmarks/run.py            # everything, shaped like Llama-3.2-1B (10 GB)
    python benchmarks/run.py --preset small --methods ties,slerp --rounds 1
    python benchmarks/run.py --only ours
    python benchmarks/run.py --check              # no timing, no peer: are the numbers right?

Checkpoints are made where missing; the peer gets a virtual environment of its own. Runs alternate
(ours, peer, ours, peer, …) with the inputs in the page cache and the last output deleted; the
median of the rounds is shown.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import check
import make_models
from measure import CommandFailed, Sample, measure, size

HERE = Path(__file__).resolve().parent
METHODS = (
    "linear",
    "slerp",
    "nuslerp",
    "multislerp",
    "karcher",
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "breadcrumbs",
    "breadcrumbs_ties",
    "sce",
    "ram",
    "ramplus_tl",
    "model_stock",
    "nearswap",
    "arcee_fusion",
    "passthrough",
    "copy",
)
"""All that the peer has, and a plain copy of one model."""
PEER_REQUIREMENTS = ("torch==2.13.0", "mergekit")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
GIB = 1 << 30


def peer_environment(work: Path) -> Path:
    """The peer's program, installed into `work/peer-venv` unless it is there."""
    program = work / "peer-venv" / "bin" / "mergekit-yaml"
    if not program.exists():
        print("installing the peer", file=sys.stderr)
        venv = work / "peer-venv"
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "--quiet", *PEER_REQUIREMENTS], check=True)
    return program


def peer_version(program: Path) -> str:
    code = "import importlib.metadata as m; print(m.version('mergekit'))"
    return subprocess.run(
        [program.parent / "python", "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def warm(models: Path) -> None:
    """Read every weight once, so that it lies in the page cache (as far as that holds it)."""
    for path in sorted(models.glob("*/*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def commands(method: str, models: Path, program: Path | None, ours: bool) -> dict[str, list[str]]:
    """The commands, `ours` and `peer`. Outputs go to `out-ours` and `out-peer` in `models`."""
    sides: dict[str, list[str]] = {}
    if ours:
        recipe = models / f"{method}.mrg"
        shutil.copyfile(HERE / "recipes" / f"{method}.mrg", recipe)
        sides["ours"] = [sys.executable, "-m", "mergec.cli.main", "-q", str(recipe), "-o", "out-ours"]
    if program:
        sides["peer"] = [str(program), "--quiet", str(HERE / "peer" / f"{method}.yml"), "out-peer"]
    return sides


def timed(label: str, command: Sequence[str], models: Path, output: str | None) -> Sample:
    """One measured run, with the output removed before and after."""
    target = models / output if output else None
    if target:
        remove(target)
    warm(models)
    subprocess.run(["sync"], check=True)
    sample = measure(command, cwd=models, log=models / f"{label}.log", output=target, env=OFFLINE)
    if target:
        remove(target)
    return sample


def median(samples: Sequence[Sample]) -> Sample:
    """Every figure's median, each by itself."""
    return Sample(
        wall=statistics.median(s.wall for s in samples),
        sync=statistics.median(s.sync for s in samples),
        cpu=statistics.median(s.cpu for s in samples),
        resident=round(statistics.median(s.resident for s in samples)),
        held=round(statistics.median(s.held for s in samples)),
        output=round(statistics.median(s.output for s in samples)),
    )


def row(name: str, sample: Sample, floor: str = "", wall_ratio: str = "", memory_ratio: str = "") -> str:
    cells = (
        name,
        f"{sample.wall:.2f}",
        f"{sample.sync:.2f}",
        f"{sample.cpu:.2f}",
        f"{sample.resident / GIB:.2f}",
        f"{sample.held / GIB:.2f}",
        f"{sample.output / 1e9:.2f}",
        floor,
        wall_ratio,
        memory_ratio,
    )
    return "| " + " | ".join(cells) + " |"


def inputs_of(method: str) -> tuple[str, ...]:
    """The checkpoints that a merge reads, in the order of its recipe."""
    recipe = (HERE / "recipes" / f"{method}.mrg").read_text("utf-8")
    return tuple(re.findall(r'model\("\./(\w+)"\)', recipe))


@dataclass(frozen=True, slots=True)
class Floors:
    """What no merge can beat: reading its inputs once, by the set of them, and writing its output
    once, in the way that is the faster one on this machine."""

    reading: Mapping[tuple[str, ...], Sample]
    writing: Sample

    def of(self, method: str, output: int) -> float:
        """Seconds for a merge with `output` bytes of output."""
        write = self.writing.wall * output / max(1, self.writing.output)
        return self.reading[inputs_of(method)].wall + write


def measure_floors(models: Path, methods: Sequence[str], rounds: int) -> Floors:
    """Measures and prints the floors of these methods, a plain copy of one checkpoint, and a bare
    `import torch`."""

    def floor(name: str, command: Sequence[str], output: str | None = None) -> Sample:
        sample = median([timed("floor", command, models, output) for _ in range(rounds)])
        print(row(f"floor: {name}", sample), flush=True)
        return sample

    reading = {}
    for names in sorted({inputs_of(method) for method in methods}, key=lambda n: (len(n), n)):
        files = " ".join(f"{name}/*.safetensors" for name in names)
        reading[names] = floor(f"reading {', '.join(names)}", ["sh", "-c", f"cat {files} > /dev/null"])
    nbytes = size(models / "a")
    cached = floor("writing as much as `a`", ["sh", "-c", f"head -c {nbytes} /dev/zero > out-floor"], "out-floor")
    direct = ["dd", "if=/dev/zero", "of=out-floor", "bs=16M", f"count={-(-nbytes // (1 << 24))}", "oflag=direct"]
    uncached = floor("the same, directly to the disk", direct, "out-floor")
    floor("copy of `a`", ["cp", "-r", "--reflink=never", "a", "out-floor"], "out-floor")
    floor("`import torch`", [sys.executable, "-c", "import torch"])
    return Floors(reading, min(cached, uncached, key=lambda sample: sample.wall))


def compare(models: Path, methods: Sequence[str], rounds: int, program: Path | None, ours: bool) -> int:
    """Measure and print the table, each row as soon as it is known; how many runs have failed.

    A program that fails is skipped for the rest of that method; the other goes on.
    """
    failures = 0
    columns = ("wall s", "sync s", "CPU s", "RSS GiB", "held GiB", "output GB")
    ratios = ("wall, run/floor", "wall, peer/ours", "held, peer/ours")
    print("| run | " + " | ".join((*columns, *ratios)) + " |")
    print("| --- |" + " ---: |" * len((*columns, *ratios)), flush=True)
    floors = measure_floors(models, methods, rounds)
    for method in methods:
        samples: dict[str, list[Sample]] = {}
        sides = commands(method, models, program, ours)
        for _ in range(rounds):
            for side, command in list(sides.items()):
                try:
                    sample = timed(f"{method}-{side}", command, models, f"out-{side}")
                except CommandFailed as failure:
                    print(failure, file=sys.stderr)
                    failures += 1
                    del sides[side]
                    samples.pop(side, None)
                else:
                    samples.setdefault(side, []).append(sample)
        middle = {side: median(taken) for side, taken in samples.items()}
        beside = ("", "")
        if len(middle) == 2:
            mine, theirs = middle["ours"], middle["peer"]
            beside = (f"{theirs.wall / mine.wall:.1f}", f"{theirs.held / max(1, mine.held):.1f}")
        for side, sample in middle.items():
            floor = f"{sample.wall / floors.of(method, sample.output):.1f}"
            print(row(f"{method}, {'mergec' if side == 'ours' else 'mergekit'}", sample, floor, *beside), flush=True)
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--preset", choices=make_models.PRESETS, default="1b")
    parser.add_argument("--methods", default=",".join(METHODS), help="comma list of: " + ", ".join(METHODS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("ours", "peer"))
    parser.add_argument("--work", type=Path, default=HERE / "out", help="checkpoints, peer and outputs")
    parser.add_argument("--check", action="store_true", help="compare tiny merges with a naive reference, and stop")
    args = parser.parse_args()
    methods = args.methods.split(",")
    if unknown := sorted(set(methods) - set(METHODS)):
        parser.error("no such method: " + ", ".join(unknown))
    if args.rounds < 1:
        parser.error("--rounds is at least 1")
    if args.check:
        with tempfile.TemporaryDirectory() as folder:
            return check.check(Path(folder), methods, HERE / "recipes")

    args.work.mkdir(parents=True, exist_ok=True)
    work = args.work.resolve()
    models = work / args.preset
    if not make_models.complete(models):
        print(f"making the {args.preset} checkpoints", file=sys.stderr)
        make_models.make(make_models.PRESETS[args.preset], models)
    program = None if args.only == "ours" else peer_environment(work)
    total = sum(size(models / name) for name in make_models.CHECKPOINTS)
    print(f"preset {args.preset}, {total / 1e9:.2f} GB of inputs, rounds: {args.rounds}", end="")
    print(f", mergekit {peer_version(program)}\n" if program else "\n", flush=True)
    try:
        failures = compare(models, methods, args.rounds, program, args.only != "peer")
    except CommandFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
