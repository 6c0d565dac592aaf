"""A plan and a target path to a finished output: the parts of the runtime put together."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from ...compiler.plan.plan import Plan
from ...compiler.plan.prune import prune, reuse
from ...grammar.collector import collector_spared
from ...grammar.diagnostic import MergecError
from ...grammar.records import dataclass
from ..catalog.extension_code import check_code
from ..execute.devices import execute_everywhere
from ..execute.executor import Outcome, Progress
from ..files.faults import show, writing
from ..files.inputs import Inputs
from ..output.target import Target, clear_leftovers
from ..output.writer import Writer
from ..resume.confirm import Stored, confirm
from ..resume.earlier import Earlier, as_done, checked, examine
from ..resume.journal import Done
from ..resume.keeper import Keeper
from ..resume.ledger import Ledger
from ..resume.record import with_record
from .blame import non_finite_error


@dataclass(frozen=True, slots=True)
class Report:
    """A finished run: where the output is and what it took. See `Outcome`.

    `resumed` counts the tensors that a run which was stopped had made, `reused` those of an earlier
    output at the same path. `unchanged`: the earlier output is what the plan makes, and nothing was
    done.
    """

    path: str
    outcome: Outcome
    resumed: int = 0
    reused: int = 0
    unchanged: bool = False


def run_plan(
    plan: Plan,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    fresh: bool = False,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Report:
    """Carries out a plan and puts the result at `path`, all of it or nothing.

    Resumes a run of the same plan that was stopped, takes over the tensors of an earlier output
    that would come out the same, and does nothing where that is all of them; with `fresh` it
    computes everything.

    Raises MergecError: E0601 where the target exists and `force` is not given, E0608 where it may
    not be replaced, E0662 where the plan was made for other code than there is, other E06xx for
    disk and inputs; `Cancelled` where `cancel` was set. An earlier output at `path` stays as it was
    unless the run succeeds.
    """
    check_code(plan)
    # where a function's code is not known, nobody knows what it did then
    fresh = fresh or not all(code.digest for code in plan.made_by)
    where = os.path.abspath(os.fspath(path))
    earlier = None if fresh else examine(where, plan)
    if earlier is not None and earlier.unchanged:
        return _unchanged(plan, where, earlier)
    target = Target(where, plan, force=force, fresh=fresh)
    try:
        with target, collector_spared():
            return _make(plan, target, earlier, progress, cancel)
    except MergecError as error:
        if not (lines := _left(target)):
            raise
        raise _with_help(error, lines) from error
    except BaseException as error:
        for line in _left(target):
            error.add_note(line)
        raise


def _make(
    plan: Plan,
    target: Target,
    earlier: Earlier | None,
    progress: Progress | None,
    cancel: threading.Event | None,
) -> Report:
    done = _resumed(plan, target, cancel)
    target.keep_only({plan.tensors[k].file for k in done})
    with writing(target.path):
        held = checked(earlier, plan, cancel) if earlier is not None else Earlier({}, {}, False, len(plan.outputs))
    linked = _link(plan, target, held, {plan.tensors[k].file for k in done})
    there = {k for k, t in enumerate(plan.tensors) if t.file in linked}
    copied = {k: t.found for k, t in held.tensors.items() if k not in done and k not in there}
    work = reuse(prune(plan, {*done, *there}), copied)
    known = {k: d for k, d in as_done(held).items() if k in there or k in copied} | done
    non_finite = {plan.tensors[k].name: d.non_finite for k, d in known.items() if d.non_finite}
    if progress is not None:
        progress.begins(work, _notices(plan, target, earlier, len(done), len(there) + len(copied)))
    paths = [os.path.join(target.folder, output.name) for output in plan.outputs]
    with (
        Inputs(work.inputs) as inputs,
        Keeper(target.journal, paths, plan.tensors, non_finite) as keeper,
        Writer(target.folder, plan, Ledger(plan.tensors, keeper.finished)) as writer,
    ):
        writer.start({plan.tensors[k].file for k in done}, linked)
        outcome = execute_everywhere(work, inputs, writer, progress, cancel, non_finite)
        inputs.check()
        check_code(plan)
        if plan.on_nonfinite == "error" and outcome.non_finite:
            raise non_finite_error(plan, inputs, outcome.non_finite)
        weights = writer.seal()
        made = {k: Done(k, c, non_finite.get(plan.tensors[k].name, 0)) for k, c in keeper.checksums.items()}
        writer.finish(with_record(plan, weights, known | made))
    target.commit()
    return Report(target.path, outcome, resumed=len(done), reused=len(there) + len(copied))


def _unchanged(plan: Plan, path: str, earlier: Earlier) -> Report:
    found = {plan.tensors[k].name: t.non_finite for k, t in earlier.tensors.items() if t.non_finite}
    if plan.on_nonfinite == "error" and found:
        with Inputs(plan.inputs) as inputs:
            raise non_finite_error(plan, inputs, found)
    clear_leftovers(path, plan)
    outcome = Outcome(dict(sorted(found.items())), 0, 0, 0, 0, 0.0)
    return Report(path, outcome, reused=len(plan.tensors), unchanged=True)


def _resumed(plan: Plan, target: Target, cancel: threading.Event | None) -> dict[int, Done]:
    """The tensors in the partial folder that are what its journal says."""
    by_index = {entry.tensor: entry for entry in target.entries}
    stored = []
    for entry in by_index.values():
        tensor = plan.tensors[entry.tensor]
        path = os.path.join(target.folder, plan.outputs[tensor.file].name)
        stored.append(Stored(entry.tensor, path, tensor.start, tensor.nbytes, entry.checksum))
    with writing(target.folder):
        right = confirm(stored, plan.lanes, cancel)
    return {k: entry for k, entry in by_index.items() if k in right}


def _link(plan: Plan, target: Target, earlier: Earlier, taken: Collection[int]) -> set[int]:
    """Links complete weight files of the earlier output into the new one; which of them.

    Nothing writes to these, and the earlier output goes when the new one takes its place. Files in
    `taken` hold tensors of an unfinished run already. One that is an input too, by another name, is
    copied: its status is not to change.
    """
    linked = set()
    inputs = _inodes(i.path for i in plan.inputs) if earlier.same_files else set()
    for file, path in earlier.same_files.items():
        if file not in taken and inputs.isdisjoint(_inodes([path])):
            place = os.path.join(target.folder, plan.outputs[file].name)
            with suppress(OSError):  # not every file system can; then it is copied
                os.makedirs(os.path.dirname(place), exist_ok=True)
                if os.path.lexists(place):
                    os.unlink(place)
                os.link(path, place)
                linked.add(file)
    return linked


def _inodes(paths: Iterable[str]) -> set[tuple[int, int]]:
    found = set()
    for path in paths:
        with suppress(OSError):  # whoever reads it says so
            status = os.stat(path)
            found.add((status.st_dev, status.st_ino))
    return found


def _notices(plan: Plan, target: Target, earlier: Earlier | None, resumed: int, reused: int) -> list[str]:
    every = len(plan.tensors)
    notices = []
    if target.given_up is not None:
        notices.append(f"starting over, not from where an earlier run was stopped: {target.given_up}")
    if resumed:
        notices.append(f"going on with a run that was stopped: {resumed:,} of {every:,} tensors are there")
    if reused:
        notices.append(f"taking over {reused:,} of {every:,} tensors from the earlier output")
    elif earlier is not None and earlier.why_not is not None:
        notices.append(f"taking over nothing from the earlier output: {earlier.why_not}")
    if earlier is not None and earlier.changed:
        notices.append(f"making anew what was made by code that has changed: {', '.join(earlier.changed)}")
    return notices


def _left(target: Target) -> tuple[str, ...]:
    """What a failed run has left next to the target, and what to do with it."""
    left = target.unfinished
    if left is None:
        return (target.left,) if target.left is not None else ()
    return (
        f"{left.done:,} of {left.tensors:,} tensors are done and kept in `{show(left.folder)}`, "
        f"which takes {left.nbytes / 1e9:,.2f} GB",
        "run the same again to go on from there, or with `--fresh` to start over; remove that folder to give up",
    )


def _with_help(error: MergecError, help: Sequence[str]) -> MergecError:
    first, *rest = error.diagnostics
    return error.retold([replace(first, help=(*first.help, *help)), *rest])
