"""What a run that was stopped has left in the partial folder, and whether it can be used."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from ...compiler.plan.plan import Plan
from ...grammar.records import dataclass
from ..files.faults import writing
from ..resume.journal import Done, other, read
from .partial import Partial
from .trees import is_folder, on_disk


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a run that was stopped has left: the partial folder, how many of the output's tensors
    are complete in it, and how many bytes of disk it takes."""

    folder: str
    done: int
    tensors: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Remains:
    """The tensors that are complete, as the journal says, or why there are none to go on from;
    `length` is that of the journal's good part."""

    entries: tuple[Done, ...] = ()
    given_up: str | None = None
    length: int = 0


def remains(partial: Partial, plan: Plan) -> Remains:
    """What a run of this plan can go on from. Raises OSError."""
    contents = read(partial.journal)
    if not is_folder(partial.out):
        return Remains()
    if contents is None:
        return Remains(given_up="its journal can't be read" if os.path.lexists(partial.journal) else None)
    tensors = plan.tensors
    why_not = other(contents.head, plan)
    if why_not is None and not all(
        e.tensor < len(tensors) and e.non_finite <= tensors[e.tensor].nbytes for e in contents.entries
    ):
        why_not = "its journal tells of tensors that there are not"
    if why_not is not None:
        return Remains(given_up=why_not)
    return Remains(_present(partial.out, plan, contents.entries), None, contents.length)


def _present(folder: str, plan: Plan, entries: Sequence[Done]) -> tuple[Done, ...]:
    """The entries of tensors whose files are there. One that another folder shares is none of ours
    to write to."""
    ours = set()
    for number, output in enumerate(plan.outputs):
        with suppress(OSError):
            place = os.path.join(folder, output.name)
            status = os.lstat(place)
            if not is_folder(os.path.dirname(place)):
                continue
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size == output.size:
                ours.add(number)
    return tuple(e for e in entries if plan.tensors[e.tensor].file in ours)


def waiting(path: str, plan: Plan) -> Remains:
    """What a run of this plan would find at the target `path`, an absolute path, as far as the
    journal says."""
    partial = Partial(path)
    with writing(partial.journal):
        return remains(partial, plan)


def unfinished(partial: Partial, plan: Plan) -> Unfinished | None:
    """What another run can go on from, if there is anything. Raises OSError."""
    contents = read(partial.journal)
    if contents is None or not contents.entries or not is_folder(partial.out):
        return None
    done = {entry.tensor for entry in contents.entries}
    return Unfinished(partial.path, len(done), len(plan.tensors), on_disk(partial.out))
