"""A plan and a target path to a finished output: the parts of the runtime put together."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from ..compiler.plan import Plan
from .executor import Outcome, Progress, execute
from .inputs import Inputs
from .target import Target
from .writer import Writer


@dataclass(frozen=True, slots=True)
class Report:
    """A finished run: where the output is and what it took. See `Outcome`."""

    path: str
    outcome: Outcome


def run_plan(
    plan: Plan,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Report:
    """Carries out a plan and puts the result at `path`, all of it or nothing.

    Raises MergecError: E0601 where the target exists and `force` is not given, other E06xx for disk and inputs;
    `Cancelled` where `cancel` was set. An earlier output at `path` stays as it was unless the run succeeds.
    """
    with Target(os.fspath(path), plan, force=force) as target:
        with Inputs(plan.inputs) as inputs, Writer(target.folder, plan) as writer:
            writer.start()
            outcome = execute(plan, inputs, writer, progress, cancel)
            inputs.check()
            writer.finish()
        target.commit()
    return Report(target.path, outcome)
