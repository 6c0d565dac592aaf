"""Lanes: the worker threads that share the blocks of a step, each with an arena of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType


class Cancelled(Exception):
    """The run was asked to stop. Notes (`__notes__`) say what it has left."""


class Lanes:
    """`count` lanes, of which lane 0 is the calling thread, so that a single lane costs no thread.

    `spread` hands out items in order and returns when all are done. The first exception of any
    lane, a KeyboardInterrupt of the calling thread included, stops the others after the item they
    are at, and is raised. `cancel`, set from outside, does the same and raises Cancelled.
    """

    def __init__(self, count: int, cancel: threading.Event | None = None) -> None:
        self.count = max(1, count)
        self._cancel = cancel or threading.Event()
        self._pool = ThreadPoolExecutor(self.count - 1, "mergec-lane") if self.count > 1 else None

    def __enter__(self) -> Lanes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def check(self) -> None:
        """Raises Cancelled where the run was asked to stop."""
        if self._cancel.is_set():
            raise Cancelled

    def spread(self, items: int, work: Callable[[int, int], None], most: int | None = None) -> None:
        """Calls `work(lane, item)` once for every item in `range(items)`, in no more than `most`
        lanes."""
        lanes = min(self.count, items, most or self.count)
        if lanes <= 1 or self._pool is None:
            for item in range(items):
                self.check()
                work(0, item)
            return
        lock, stop = threading.Lock(), threading.Event()
        left = iter(range(items))
        errors: list[BaseException] = []

        def lane(index: int) -> None:
            try:
                while not stop.is_set():
                    self.check()
                    with lock:
                        item = next(left, None)
                    if item is None:
                        return
                    work(index, item)
            except BaseException as error:
                # kept in order of time: what follows the first one is often only its consequence
                errors.append(error)
                stop.set()

        others: list[Future[None]] = []
        try:
            for index in range(1, lanes):
                others.append(self._pool.submit(lane, index))
        except RuntimeError as error:
            # the system gives no further thread, and the lane that should have it may still be
            # taken up by another
            errors.append(error)
            stop.set()
        lane(0)
        while True:
            try:
                wait(others)
                break
            except KeyboardInterrupt as interrupt:
                errors.append(interrupt)
                stop.set()
        if errors:
            raise errors[0]
