"""Memory that ran out, on the host or on a device, distinguished from other failures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...compiler.plan.plan import Plan
from ...grammar.diagnostic import MergecError, error

_HOST = ("can't allocate memory", "not enough memory", "can't start new thread", "std::bad_alloc")
"""What torch and Python say where they raise RuntimeError for want of memory."""

_MIB = 1 << 20


@contextmanager
def within_memory(plan: Plan) -> Iterator[None]:
    """Turns the host's running out of memory within into MergecError (E0003)."""
    try:
        yield
    except MemoryError as error:
        raise host_full(plan) from error
    except RuntimeError as error:
        if not any(text in str(error) for text in _HOST):
            raise
        raise host_full(plan) from error


def host_full(plan: Plan) -> MergecError:
    """The error for a plan that the host has no memory for."""
    return error(
        "E0003",
        "out of memory",
        notes=f"the plan needs {_mebibytes(plan.peak_host)}, beside what Python and its libraries take",
        help=(f"`--memory {_less(plan.peak_host)}` for smaller blocks", "`--lanes 1` for fewer of them"),
    )


def is_device_full(error: RuntimeError) -> bool:
    """Whether torch, which is not loaded here, says so: `torch.OutOfMemoryError`."""
    return type(error).__name__ == "OutOfMemoryError"


def device_full(plan: Plan, free: int | None) -> MergecError:
    """The error for a plan that its device has no memory for; `free` is what others leave, where
    that is known."""
    needs = f"the plan needs {_mebibytes(plan.peak_device)} there"
    now = "" if free is None else f", and {_mebibytes(free)} are free for it"
    # a part of what is free goes to the device's own libraries
    budget = _less(plan.peak_device if free is None else min(plan.peak_device, free))
    return error(
        "E0644",
        f"out of memory on the device `{plan.device}`",
        notes=needs + now,
        help=(f"`--device-memory {budget}` for smaller blocks", "or `--device cpu`"),
    )


def _less(nbytes: int) -> str:
    return f"{max(1, nbytes // 2 // _MIB)}MiB"


def _mebibytes(nbytes: int) -> str:
    return f"{-(-nbytes // _MIB):,} MiB"
