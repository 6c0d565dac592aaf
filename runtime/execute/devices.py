"""Carries out a plan on all of its devices at once, each with lanes and memory of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from ...compiler.plan.plan import Plan
from ...compiler.plan.split import split
from ..stream.interfaces import Progress, Writes
from .executor import Cancelled, Outcome, R, execute


class _Stop(threading.Event):
    """Set by any part that fails, and by whoever cancels the run."""

    def __init__(self, cancel: threading.Event | None) -> None:
        super().__init__()
        self._cancel = cancel

    def is_set(self) -> bool:
        return super().is_set() or (self._cancel is not None and self._cancel.is_set())


class _Share:
    """One part's progress, passed on to that of the run: one part at a time, with the memory of all
    parts together."""

    def __init__(self, progress: Progress, lock: threading.Lock, held: list[tuple[int, int]], part: int) -> None:
        self._progress, self._lock, self._held, self._part = progress, lock, held, part

    def begins(self, plan: Plan, notices: Sequence[str]) -> None:
        del plan, notices
        raise RuntimeError("a run begins once, not in every part")

    def tensor(self, index: int) -> None:
        with self._lock:
            self._progress.tensor(index)

    def moved(self, read: int, written: int) -> None:
        with self._lock:
            self._progress.moved(read, written)

    def live(self, host: int, device: int) -> None:
        with self._lock:
            self._held[self._part] = host, device
            self._progress.live(sum(h for h, _ in self._held), max(d for _, d in self._held))


def execute_everywhere(
    plan: Plan,
    reads: R,
    writes: Writes[R],
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    non_finite: dict[str, int] | None = None,
) -> Outcome:
    """Runs a plan to its end as `execute` does, on each of its devices what is that one's part.

    `Outcome.peak_device` is that of the device that held the most, `Outcome.peak_host` the sum of
    the parts'. The first part that fails stops the others, and its error is raised.
    """
    parts = split(plan)
    if len(parts) < 2:
        return execute(parts[0] if parts else plan, reads, writes, progress, cancel, non_finite)
    found: dict[str, int] = {} if non_finite is None else non_finite
    stop, lock, held = _Stop(cancel), threading.Lock(), [(0, 0)] * len(parts)
    failures: list[BaseException] = []
    outcomes: list[Outcome] = []

    def work(number: int) -> None:
        share = _Share(progress, lock, held, number) if progress is not None else None
        try:
            outcomes.append(execute(parts[number], reads, writes, share, stop, found))
        except BaseException as error:
            # kept in order of time: what follows the first one is that the others were stopped
            failures.append(error)
            stop.set()

    with ThreadPoolExecutor(len(parts), "mergec-device") as pool:
        running = [pool.submit(work, number) for number in range(len(parts))]
        try:
            wait(running)
        except KeyboardInterrupt as interrupt:
            failures.insert(0, interrupt)
            stop.set()
    if failures:
        raise next((f for f in failures if not isinstance(f, Cancelled)), failures[0])
    return Outcome(
        non_finite=dict(sorted(found.items())),
        peak_host=sum(o.peak_host for o in outcomes),
        peak_device=max(o.peak_device for o in outcomes),
        bytes_read=sum(o.bytes_read for o in outcomes),
        bytes_written=sum(o.bytes_written for o in outcomes),
        seconds=max(o.seconds for o in outcomes),
    )
