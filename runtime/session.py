"""A plan and a target path to a finished output: the parts of the runtime put together."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from ..compiler.plan import Plan
from ..grammar.diagnostic import Diagnostic, Exit, MergecError
from .executor import Outcome, Progress, execute
from .inputs import Inputs
from .target import Target
from .writer import Writer


@dataclass(frozen=True, slots=True)
class Report:
    """A finished run: where the output is and what it took. See `Outcome`."""

    path: str
    outcome: Outcome


MOST_NAMED = 5
"""Tensors that the error about infinities and NaNs names."""


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
            if plan.on_nonfinite == "error" and outcome.non_finite:
                raise _non_finite(outcome.non_finite)
            writer.finish()
        target.commit()
    return Report(target.path, outcome)


def _non_finite(found: Mapping[str, int]) -> MergecError:
    worst = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    notes = tuple(f"{count:,} in `{name}`" for name, count in worst[:MOST_NAMED])
    more = (f"and in {len(worst) - MOST_NAMED} more",) if len(worst) > MOST_NAMED else ()
    return MergecError(
        Diagnostic(
            "E0614",
            f"infinities or NaNs in {len(found)} tensor{'s' if len(found) > 1 else ''} of the output",
            notes=(*notes, *more),
            help=(
                "look for the input that has them, or a weight that is too large",
                "`mergec --explain RECIPE PLACE` shows a tensor's whole story",
            ),
        ),
        Exit.RUN,
    )
