"""What hardware this machine has, found out without torch."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from ...compiler.plan.machine import devices_of
from ...grammar.diagnostic import error


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def usual_lanes() -> int:
    """One more than the cores: while one lane waits for the disk, another computes."""
    return usable_cores() + 1


def choose_device(wanted: str) -> str:
    """The device that `auto` stands for, or the one asked for in its full form. Raises MergecError
    (E0613).

    Whether torch can really use it shows when the run begins; `--check` must not import torch.
    """
    if wanted == "auto":
        return "cuda:0" if _has_nvidia_driver() and _torch_has_cuda() else "cpu"
    if wanted == "cuda":
        return "cuda:0"
    names = devices_of(wanted)
    numbered = len(set(names)) == len(names) and all(re.fullmatch(r"cuda:\d+", name) for name in names)
    if wanted in ("cpu", "mps") or numbered:
        return wanted
    help = ("use `auto`, `cpu`, `cuda`, `cuda:1`, `cuda:0,cuda:1` or `mps`",)
    raise error("E0613", f"no device `{wanted}`", help=help)


def _has_nvidia_driver() -> bool:
    return any(os.path.exists(f"/dev/{name}") for name in ("nvidiactl", "nvidia-uvm", "dxg"))


def _torch_has_cuda() -> bool:
    """Whether the installed torch is a CUDA build, by its files: importing it would cost a
    second."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    folder = Path(spec.origin).parent / "lib"
    return any((folder / name).exists() for name in ("libtorch_cuda.so", "torch_cuda.dll"))
