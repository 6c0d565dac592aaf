"""The interfaces of the executor: reads, writes, progress; and the tally that it keeps. Needs no
torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from ...compiler.plan.plan import Extent, Plan


class Reads(Protocol):
    """The plan's input files, by index. Called from several threads at once."""

    def read_into(self, file: int, start: int, view: memoryview) -> None:
        """Fills `view` with the bytes from `start` on; raises where the file is shorter or has
        changed."""
        ...

    def borrowed(self, files: Sequence[int]) -> AbstractContextManager[Sequence[int]]:
        """Open descriptors of some of the files, for positioned reads, while the context lasts;
        none where these are no files of the system's. Where a read through them fails, `read_into`
        says why."""
        ...


R_contra = TypeVar("R_contra", contravariant=True)


class Writes(Protocol[R_contra]):
    """The plan's output files, by index, over inputs that it knows how to copy from. Called
    from several threads at once, never twice for the same bytes."""

    def write(self, file: int, start: int, data: memoryview) -> None:
        """Puts `data`, of one tensor or of several adjacent ones, at byte `start`; `data` is the
        caller's again after the call."""
        ...

    def copy(self, inputs: R_contra, extent: Extent, file: int, start: int) -> None:
        """Puts bytes of an input file, of one tensor or of several, at byte `start`, unchanged."""
        ...


class Progress(Protocol):
    """Is notified of what happens, from several threads, though never from two at once. An
    exception stops the run."""

    def begins(self, plan: Plan, notices: Sequence[str]) -> None:
        """The work begins: `plan` without what is there already, from a run that was stopped or an
        earlier output.

        `notices` say where it begins and why, each a sentence for people.
        """
        ...

    def tensor(self, index: int) -> None:
        """Work begins on output tensor `index` of the plan."""
        ...

    def moved(self, read: int, written: int) -> None:
        """Bytes read and written since the last call; what a pass reads again isn't counted."""
        ...

    def live(self, host: int, device: int) -> None:
        """Bytes that the step which begins holds, scratch included."""
        ...


class Tally:
    """Counts of a run so far, passed on to a `Progress`."""

    def __init__(self, progress: Progress | None, non_finite: dict[str, int] | None = None) -> None:
        self._progress, self._lock = progress, threading.Lock()
        self._tensor = -1
        self.read = 0
        self.written = 0
        self.non_finite: dict[str, int] = {} if non_finite is None else non_finite

    def tensor(self, index: int) -> None:
        with self._lock:
            if index != self._tensor and self._progress is not None:
                self._progress.tensor(index)
            self._tensor = index

    def moved(self, read: int, written: int, *, again: bool = False) -> None:
        with self._lock:
            self.read += read
            self.written += written
            if self._progress is not None and not again:
                self._progress.moved(read, written)

    def live(self, host: int, device: int) -> None:
        if self._progress is not None:
            with self._lock:
                self._progress.live(host, device)

    def found(self, name: str, non_finite: int) -> None:
        with self._lock:
            self.non_finite[name] = self.non_finite.get(name, 0) + non_finite
