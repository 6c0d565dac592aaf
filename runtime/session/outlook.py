"""What a run would find at its target, and so what it would have to do. Looks only; reads no
weights."""

from __future__ import annotations

import os

from ...compiler.plan.plan import Plan
from ...compiler.plan.prune import prune, reuse
from ...grammar.records import dataclass
from ..output.unfinished import waiting
from ..resume.earlier import examine


@dataclass(frozen=True, slots=True)
class Outlook:
    """What there is to do: tensors to be made, by index in the plan, and bytes to be read and
    written for that.

    `exists`: something is at the target; `unchanged`: it is what the plan makes. `reused` counts
    the tensors to be taken over from it, `resumed` those of a run that was stopped. `why_not` says
    why one of them can't be used.
    """

    exists: bool
    unchanged: bool
    made: tuple[int, ...]
    reused: int
    resumed: int
    why_not: str | None
    reads: int
    writes: int


def look(plan: Plan, path: str) -> Outlook:
    """What `run_plan` would do with this target, as far as is known without comparing checksums."""
    where = os.path.abspath(path)
    exists = os.path.lexists(where)
    earlier = examine(where, plan)
    if earlier is not None and earlier.unchanged:
        return Outlook(exists, True, (), len(plan.tensors), 0, None, 0, 0)
    left = waiting(where, plan)
    resumed = {entry.tensor for entry in left.entries}
    found = {} if earlier is None else {k: t for k, t in earlier.tensors.items() if k not in resumed}
    whole = () if earlier is None else earlier.same_files
    there = resumed | {k for k in found if plan.tensors[k].file in whole}
    work = reuse(prune(plan, there), {k: t.found for k, t in found.items() if k not in there})
    made = tuple(k for k in range(len(plan.tensors)) if k not in resumed and k not in found)
    why_not = left.given_up or (earlier.why_not if earlier is not None else None)
    return Outlook(exists, False, made, len(found), len(resumed), why_not, work.reads, work.writes)
