#!/usr/bin/env python3
"""What merges hold in memory: next to nothing besides Python itself, with numpy, with torch; and
TIES of many models.

    python benchmarks/memory.py [--work FOLDER] [--preset NAME] [--models N ...] [--lanes N]
    [--rounds N]

Whole processes, in MiB: `held` is heap, stacks and buffers (RssAnon and RssShmem of
/proc/PID/status), `resident` counts the pages of mapped files too, `planned` is what the plan says
of its buffers alone. The first rows are of tiny models, whose buffers are small: what is left is
the process. The models of the others are `a` and `b` of the preset in turn, under names of their
own. Linux only.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import make_models
from measure import measure

MIB = 1 << 20
PROCESSES = {
    "python": (),
    "copy": ("a", "* = a"),
    "with numpy: linear": ("a", "b", "* = linear(a, b)"),
    "with torch: truncate_rank": ("base", "a", "* = base + truncate_rank(a - base, rank=2)"),
}
"""Models and what is made of them."""


def named(folder: Path, models: int) -> list[str]:
    """Names of as many models, which are folders with second names of the files of `a` and `b`."""
    names = [f"m{k:02}" for k in range(models)]
    for k, name in enumerate(names):
        if not (folder / name).exists():
            shutil.copytree(
                folder / "ab"[k % 2], folder / name, copy_function=lambda old, new: Path(new).hardlink_to(old)
            )
    return names


def ties(folder: Path, models: int) -> tuple[str, ...]:
    names = named(folder, models)
    return "base", *names, f"* = ties({', '.join(names)}, base=base, density=0.5)"


def row(name: str, recipe: Sequence[str], folder: Path, lanes: int | None, rounds: int) -> None:
    """Runs a recipe over models of a folder and prints what it takes."""
    log, out = folder / "log", folder / "out"
    command, planned = [sys.executable, "-c", "import time; time.sleep(0.3)"], ""
    if recipe:
        lines = [f'let {label} = model("./{label}")' for label in recipe[:-1]]
        (folder / "memory.mrg").write_text("\n".join([*lines, recipe[-1], ""]))
        command = [sys.executable, "-m", "mergec.cli.main", "memory.mrg", "-o", "out"]
        command += ["--lanes", str(lanes)] if lanes else []
    samples = []
    for _ in range(rounds):
        shutil.rmtree(out, ignore_errors=True)
        samples.append(measure(command, cwd=folder, log=log))
    for line in log.read_text().splitlines():
        if line.split()[:1] == ["memory"]:
            planned = line.split(",")[-1].removesuffix("planned").strip()
    held, resident = (statistics.median(x) / MIB for x in zip(*[(s.held, s.resident) for s in samples], strict=True))
    print(f"{name:28} {held:>9.1f} {resident:>13.1f} {planned:>13}", flush=True)
    shutil.rmtree(out, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path(__file__).resolve().parent / "out")
    parser.add_argument("--preset", choices=make_models.PRESETS, default="small")
    parser.add_argument("--models", type=int, nargs="+", default=[2, 15], help="of how many models TIES is measured")
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    work = given.work.resolve()
    for preset in ("tiny", given.preset):
        if not make_models.complete(work / preset):
            make_models.make(make_models.PRESETS[preset], work / preset)
    print(f"{'process':28} {'held MiB':>9} {'resident MiB':>13} {'planned':>13}")
    for name, recipe in PROCESSES.items():
        row(name, recipe, work / "tiny", given.lanes, given.rounds)
    for models in given.models:
        folder = work / given.preset
        row(f"{given.preset}: ties of {models}", ties(folder, models), folder, given.lanes, given.rounds)


if __name__ == "__main__":
    main()
