"""numpy as the command line loads it: without the threads of its linear algebra.

numpy's library for that (OpenBLAS) starts one thread per core as it is loaded, and each of them
spins for some hundredths of a second before it goes to sleep. Nothing in mergec asks numpy for
linear algebra, and a small merge takes hardly longer than that. A program that imports mergec may
do such algebra itself, so only the command line, whose process is its own, loads numpy so; and only
for a merge that runs nobody else's code, as a function of an installed package is.
"""

from __future__ import annotations

import importlib
import os

from ...compiler.plan.plan import Pass, Plan

_THREADS = "OPENBLAS_NUM_THREADS"


def load_numpy(plan: Plan) -> None:
    """Loads numpy with one thread, where a plan needs it and nothing that may want more.

    The variable is as it was afterwards: torch may have an OpenBLAS of its own, which is to have
    its threads.
    """
    if _THREADS in os.environ or not _computes_alone(plan):
        return
    os.environ[_THREADS] = "1"
    try:
        importlib.import_module("numpy")
    finally:
        del os.environ[_THREADS]


def _computes_alone(plan: Plan) -> bool:
    """Whether there are passes, and all that any of them does is the language's own."""
    codes = {id(step.action.code): step.action.code for step in plan.steps if isinstance(step.action, Pass)}
    return bool(codes) and not any(each.op == "installed" for code in codes.values() for each in code)
