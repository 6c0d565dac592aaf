"""Measures the GPU path: results against the CPU's, device memory against the plan, bytes per
second against bare copies.

    python benchmarks/gpu.py --models DIR [--out DIR] [--rounds N]

`DIR` holds `base`, `a` and `b` (`benchmarks/make_models.py`). For every method: the output of
`--device cuda` and of `--device cpu` are compared byte for byte (elements that differ are counted),
the peak of `torch.cuda.max_memory_allocated` is set against the plan's, and the run's bytes per
second against a pinned host-device-host copy of the same bytes on the same device, in the same
process.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import mergec
import torch

METHODS = {
    "linear": "* = linear(a, b, weight=[0.6, 0.4])",
    "slerp": "* = slerp(a, b, t=0.4)",
    "task_arithmetic": "* = task_arithmetic(a, b, weight=0.5)",
    "ties": "* = ties(a, b, weight=0.5, density=0.5)",
    "dare_ties": "* = dare_ties(a, b, weight=0.5, density=0.5)",
}


def recipe(models: Path, statement: str) -> str:
    lines = [f'let {name} = model("{models / name}")' for name in ("base", "a", "b")]
    return "\n".join([*lines, statement])


def weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def differing(first: Path, second: Path) -> tuple[int, int]:
    """Bytes that differ, and bytes compared, over the weight files of two outputs."""
    different = total = 0
    for one, other in zip(weights(first), weights(second), strict=True):
        a, b = (torch.from_file(str(p), size=p.stat().st_size, dtype=torch.uint8) for p in (one, other))
        different += int((a != b).sum())
        total += a.numel()
    return different, total


def bare_copy(read: int, written: int, rounds: int) -> float:
    """Seconds for copying `read` bytes to the device and `written` back through pinned memory,
    nothing else."""
    piece = 1 << 26
    host = torch.empty(piece, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(piece, dtype=torch.uint8, device="cuda")
    times = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(read // piece):
            device.copy_(host, non_blocking=True)
        for _ in range(written // piece):
            host.copy_(device, non_blocking=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", type=Path, required=True)
    p.add_argument("--out", type=Path)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--methods", default=",".join(METHODS))
    args = p.parse_args()
    work = args.out or Path(tempfile.mkdtemp())
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, {mergec.__version__=}")
    print("| method | cuda s | cpu s | bytes that differ | peak device MiB | planned MiB | GB/s | bare copy GB/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for method in args.methods.split(","):
        text = recipe(args.models, METHODS[method])
        on_gpu, on_cpu = work / "gpu", work / "cpu"
        seconds, peak = [], 0
        gpu = mergec.compile(text, device="cuda")
        for _ in range(args.rounds):
            shutil.rmtree(on_gpu, ignore_errors=True)
            torch.cuda.reset_peak_memory_stats()
            report = gpu.run(on_gpu)
            seconds.append(report.outcome.seconds)
            peak = torch.cuda.max_memory_allocated()
        shutil.rmtree(on_cpu, ignore_errors=True)
        cpu = mergec.compile(text, device="cpu").run(on_cpu)
        different, total = differing(on_gpu, on_cpu)
        outcome = report.outcome
        moved = outcome.bytes_read + outcome.bytes_written
        took = statistics.median(seconds)
        bare = bare_copy(outcome.bytes_read, outcome.bytes_written, args.rounds)
        print(
            f"| {method} | {took:.2f} | {cpu.outcome.seconds:.2f} | {different} of {total} | {peak / 2**20:.1f} "
            f"| {gpu.plan.peak_device / 2**20:.1f} | {moved / took / 1e9:.1f} | {moved / bare / 1e9:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
