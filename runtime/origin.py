"""With what an output is made, as far as its bytes may depend on that."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata

from ..compiler.plan import Plan

_LIBRARIES = ("torch", "numpy")


def made_with(plan: Plan) -> dict[str, str]:
    """Versions, kind of device and processor. What was made with others is not mixed with what is made now: functions
    such as `sin`, and decompositions, may differ in the last bit between them."""
    return {"mergec": plan.version, "device": plan.device.partition(":")[0], **_machine()}


def difference(then: Mapping[str, object], now: Mapping[str, str]) -> str | None:
    """What is not as it was, in a few words; None where all is."""
    for name, value in now.items():
        if then.get(name) != value:
            return f"it was made with another {'version of ' + name if name in ('mergec', *_LIBRARIES) else name}"
    return None


@cache
def _machine() -> Mapping[str, str]:
    found = {"processor": _processor()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # another system
    return platform.machine()
