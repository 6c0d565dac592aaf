"""Runs whose journal keeps up with them, so that how far they had come when they were stopped is no
matter of time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from mergec.runtime.resume.journal import Done, read
from mergec.runtime.resume.keeper import Keeper


def in_step(patch: Callable[[type, str, object], None]) -> None:
    """A lane goes on from a finished tensor when the journal has it, or has failed to take it; with
    one lane, every run does the same in the same order. `patch` is `setattr`, or one that is
    undone."""
    changed, done = threading.Condition(), [0]
    keep, finished = Keeper._keep, Keeper.finished

    def keeps(self: Keeper, taken: Sequence[Done]) -> None:
        try:
            keep(self, taken)
        except BaseException as fault:
            self._fault = fault  # a moment before its thread does, so that no lane is waiting for that
            raise
        finally:
            with changed:
                done[0] += len(taken)
                changed.notify_all()

    def waits(self: Keeper, tensor: int, checksum: str | None) -> None:
        with changed:
            before = done[0]
            finished(self, tensor, checksum)
            assert checksum is None or changed.wait_for(lambda: done[0] > before, timeout=100)

    patch(Keeper, "_keep", keeps)
    patch(Keeper, "finished", waits)


def told(out: Path) -> int:
    """How many tensors the journal tells of that a stopped run of this output has left; 0 where
    there is none."""
    contents = read(str(out.with_name(f".{out.name}.partial") / "journal"))
    return len({entry.tensor for entry in contents.entries}) if contents is not None else 0
