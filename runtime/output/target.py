"""The target on disk: it appears complete, by one rename, or not at all.

A run works in the partial folder next to it (`partial.py`). One that is stopped leaves that there,
and another of the same plan resumes from it (`unfinished.py`).
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from types import TracebackType

from ...compiler.plan.plan import Plan
from ...grammar.diagnostic import MergecError
from ..files.faults import show, writing
from ..resume.journal import Done, Journal, head_of
from .conditions import check_inputs, check_parent, check_space
from .partial import Partial
from .swap import Swap
from .trees import remove_but
from .unfinished import Remains, Unfinished, remains, unfinished

HOPELESS = ("E0606", "E0607", "E0612", "E0614", "E0662")
"""Errors after which nothing is kept: the same plan could only fail again, and another would not go
on from it."""


class Target:
    """The output folder, or the output file of a plan that is `single`.

    Use as a context manager: entering checks, locks and makes the partial folder, or takes up that
    of an unfinished run of the same plan, unless it is to begin `fresh`; `commit()` puts the result
    in place. Without a commit an old target stays as it was, and the partial folder where another
    run can go on from it (`unfinished`). Raises MergecError with E0601 to E0610, E0616 or E0617.

    Once entered, `entries` are the tensors that are complete in `folder`, as its journal says;
    `given_up` says why an unfinished run that was there is not resumed, if there was one. After a
    failure `left` says what the partial folder holds besides the work of this run, if that is
    still there.
    """

    def __init__(self, path: str, plan: Plan, *, force: bool = False, fresh: bool = False) -> None:
        self.path = os.path.abspath(path)
        self.entries: tuple[Done, ...] = ()
        self.given_up: str | None = None
        self.unfinished: Unfinished | None = None
        self.left: str | None = None
        self._journal: Journal | None = None
        self._plan, self._fresh = plan, fresh
        self._partial = Partial(self.path)
        self._swap = Swap(self._partial, single=plan.single, force=force)

    @property
    def folder(self) -> str:
        """The folder in which the plan's files are to be written."""
        return self._partial.out

    @property
    def journal(self) -> Journal:
        """Where complete tensors are to be noted."""
        assert self._journal is not None
        return self._journal

    def __enter__(self) -> Target:
        check_parent(self.path)
        check_inputs(self.path, self._plan)
        if not self._swap.interrupted:
            self._swap.look()
        self._partial.acquire()
        try:
            with writing(self._partial.path):
                self._swap.restore()
            self._swap.look()
            with writing(self._partial.path):
                self._take_up()
            check_space(self.path, self._plan, self.folder)
            if self._journal is None:
                with writing(self.folder):
                    os.mkdir(self.folder)
                with writing(self._partial.journal):
                    self._journal = Journal.create(self._partial.journal, head_of(self._plan))
        except BaseException as fault:
            self._end(fault)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._partial.held:
            self._end(fault)

    def keep_only(self, files: Collection[int]) -> None:
        """Removes everything that an unfinished run has left in `folder` except these of the plan's
        weight files."""
        keep = {self._plan.outputs[k].name for k in files}
        with writing(self.folder):
            remove_but(self.folder, keep)

    def commit(self) -> None:
        """Puts the result in place of the target; everything in `folder` must be on disk
        (`Writer.finish`)."""
        single = self._plan.single
        self._swap.put(os.path.join(self.folder, self._plan.outputs[0].name) if single else self.folder)
        self._close_journal()
        _clear(self._partial, self._swap)

    def _take_up(self) -> None:
        """Goes on from what an unfinished run has left, if it made the same; clears it away
        otherwise."""
        found = Remains() if self._fresh else remains(self._partial, self._plan)
        self.entries, self.given_up = found.entries, found.given_up
        if self.entries:
            self._journal = Journal.reopen(self._partial.journal, found.length)
        else:
            self._partial.remove_work()

    def _end(self, fault: BaseException | None) -> None:
        """Keeps what is worth keeping, and says in `left` what else is still there."""
        self._close_journal()  # nothing is added to it any more, and reading it takes a file's place
        folder = show(self._partial.path)
        try:
            kept = unfinished(self._partial, self._plan)
        except OSError:
            self.left = f"what an earlier run has left in `{folder}` stays there"
            self._partial.close()
            return
        if kept is not None and not _hopeless(fault):
            self.unfinished = kept
            self._partial.close()
            return
        _clear(self._partial, self._swap)
        if self._partial.survives:
            self.left = f"`{folder}` could not be removed, and holds nothing of use"

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def clear_leftovers(path: str, plan: Plan) -> None:
    """Removes what a killed run has left next to a target, an absolute path, that is as it should
    be. Does nothing where another run works there, or where it can't be removed."""
    partial = Partial(path)
    if os.path.isdir(partial.path):
        with suppress(MergecError):
            partial.acquire()
            _clear(partial, Swap(partial, single=plan.single, force=False))


def _clear(partial: Partial, swap: Swap) -> None:
    """Removes the partial folder and then releases the lock; the target itself is as it should
    be."""
    with suppress(OSError, MergecError):
        swap.restore()
        partial.remove()
    partial.close()


def _hopeless(fault: BaseException | None) -> bool:
    """Whether going on could only end in the same way: the recipe or an input has to change
    first."""
    return isinstance(fault, MergecError) and any(d.code in HOPELESS for d in fault.diagnostics)
