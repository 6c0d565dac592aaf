"""What an output is made with, as far as its bytes may depend on it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache

from ...compiler.plan.plan import Code, Opaque, Plan
from ..machine.hardware import usable_cores
from ..native.loading import opened

_LIBRARIES = ("torch", "numpy")

_OTHERS = {
    "device": "another kind of device",
    "processor": "another processor",
    "cores": "another number of cores",
    "kernels": "other kernels for the CPU, compiled ones or torch's",
}


def made_with(plan: Plan) -> dict[str, str]:
    """Versions, kind of device and processor, and digests of the code. What was made with others is
    not mixed with what is made now: functions such as `sin`, and decompositions, may differ in the
    last bit between them.

    `kernels`: whether the compiled ones can be loaded here. `cores` is for decompositions, which
    share a sum among threads; elsewhere they make no difference.
    """
    return _surroundings(plan) | {_name(code.kernel): code.digest for code in plan.made_by}


def _surroundings(plan: Plan) -> dict[str, str]:
    cores = f"{usable_cores()} {os.environ.get('OMP_NUM_THREADS', '')}".strip()
    kernels = "native" if opened() is not None else "torch"
    device = plan.device.partition(":")[0]
    return {"mergec": plan.version, "device": device, "kernels": kernels, **_machine(), "cores": cores}


def _name(kernel: str) -> str:
    """Where the digest of a kernel's code stands; that of mergec's own under no address."""
    return f"kernel {kernel}" if kernel else "code"


def difference(then: Mapping[str, object], plan: Plan) -> str | None:
    """What is not as it was, as far as it matters to a plan, in a few words; None where all is.
    `changed_code` says whether the code is: only what it makes differs, and keys say which tensors
    these are."""
    decomposes = any(isinstance(step.action, Opaque) for step in plan.steps)
    for name, value in _surroundings(plan).items():
        if then.get(name) != value and (name != "cores" or decomposes):
            return f"it was made with {_OTHERS.get(name, f'another version of {name}')}"
    return None


def recorded_code(then: Mapping[str, object], now: Sequence[Code]) -> tuple[Code, ...]:
    """The code as it was then, in the order of `now`."""
    return tuple([Code(c.kernel, c.package, str(then.get(_name(c.kernel), ""))) for c in now])


def changed_code(then: Mapping[str, object], now: Sequence[Code]) -> list[Code]:
    """The code that something was made with and that has changed since. Code that is not known
    counts too."""
    names = [(_name(code.kernel), code) for code in now]
    return [code for name, code in names if name in then and (then[name] != code.digest or not code.digest)]


@cache
def _machine() -> Mapping[str, str]:
    found = {"processor": _processor(), "libc": " ".join(platform.libc_ver())}
    return found | {name: _version(name) for name in _LIBRARIES}


def _version(name: str) -> str:
    """The version of an installed library by the name of the folder that `pip` leaves next to it.

    `importlib.metadata` finds the same there, but loads the standard library's reader of mail
    first, which takes longer than a small merge; and the library itself may not be loaded at all.
    """
    for folder in sys.path:
        with suppress(OSError):
            for entry in sorted(os.listdir(folder or ".")):
                stem, ending = os.path.splitext(entry)
                if ending in (".dist-info", ".egg-info") and stem.startswith(f"{name}-"):
                    return stem.removeprefix(f"{name}-")
    return "none"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # another system
    return platform.machine()
