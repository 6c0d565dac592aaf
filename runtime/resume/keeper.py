"""Syncs finished tensors to disk while others are computed, and records them in the journal
afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType

from ...compiler.plan.plan import OutputTensor
from ...grammar.diagnostic import MergecError
from ..files.faults import writing
from ..files.syscalls import sync
from .journal import Done, Journal

SECONDS = 5.0
"""How long a finished tensor waits at most before it is synced."""

BYTES = 1 << 30
"""How many finished bytes wait at most."""


class Keeper:
    """Takes finished tensors from any thread (`finished`), and syncs and journals them in a thread
    of its own.

    Use as a context manager. A fault in it is raised by the next `finished`, or at the end. Left
    with an exception, it keeps what is finished so far: that is what another run resumes from.
    """

    def __init__(
        self,
        journal: Journal,
        paths: Sequence[str],
        tensors: Sequence[OutputTensor],
        non_finite: Mapping[str, int],
        *,
        seconds: float | None = None,
        nbytes: int | None = None,
    ) -> None:
        """`paths` are the weight files; `non_finite` counts by tensor name, complete for a tensor
        that is finished."""
        self._journal, self._paths, self._tensors, self._non_finite = journal, paths, tensors, non_finite
        self._seconds = SECONDS if seconds is None else seconds
        self._nbytes = BYTES if nbytes is None else nbytes
        self._waiting: list[Done] = []
        self._since = self._size = 0.0
        self._changed = threading.Condition()
        self._stop = False
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="mergec-keeper", daemon=True)
        self.checksums: dict[int, str] = {}

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stop = True
            self._changed.notify()
        self._thread.join()
        if kind is None and self._fault is not None:
            raise self._fault
        if kind is not None and self._fault is None:
            # the run has failed already: what can't be kept is computed again
            with suppress(OSError, MergecError):
                self._keep(self._taken())

    def finished(self, tensor: int, checksum: str | None) -> None:
        """Tensor `tensor` of the plan is written. One without a checksum could not be checked
        later, so it isn't kept: it was copied, and is copied again."""
        if self._fault is not None:
            raise self._fault
        if checksum is None:
            return
        found = self._tensors[tensor]
        with self._changed:
            self.checksums[tensor] = checksum
            first = not self._waiting
            if first:
                self._since = time.monotonic()
            self._waiting.append(Done(tensor, checksum, self._non_finite.get(found.name, 0)))
            self._size += found.nbytes
            # the thread waits for the first and then for the clock: to be woken by each of many
            # takes longer than they
            if first or self._size >= self._nbytes:
                self._changed.notify()

    def _taken(self) -> list[Done]:
        with self._changed:
            taken, self._waiting, self._size = self._waiting, [], 0
            return taken

    def _work(self) -> None:
        try:
            while self._due():
                self._keep(self._taken())
        except BaseException as fault:
            self._fault = fault

    def _due(self) -> bool:
        """Waits until it is time to keep what waits; False at the end."""
        with self._changed:
            while not self._stop:
                left = self._since + self._seconds - time.monotonic() if self._waiting else None
                if self._waiting and (self._size >= self._nbytes or (left is not None and left <= 0)):
                    return True
                self._changed.wait(left)
            return False

    def _keep(self, taken: Sequence[Done]) -> None:
        if not taken:
            return
        for file in sorted({self._tensors[done.tensor].file for done in taken}):
            with writing(self._paths[file]):
                sync(self._paths[file])
        with writing(self._journal.path):
            self._journal.append(taken)
