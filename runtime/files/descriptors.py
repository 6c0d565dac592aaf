"""A bounded number of open files, shared by threads, within what the system allows."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from ...grammar.diagnostic import error

MOST_OPEN = 64
"""Files that the inputs, and the outputs, keep open at most: more gain nothing."""

_OTHERS = 20
"""Descriptors that are left for everything else: the lock and the journal, libraries that are being
loaded."""


def room(lanes: int = 1) -> int:
    """How many files the inputs may keep open, and as many the outputs in each of the two ways that
    they are written, in a run of `lanes` lanes.

    Raises MergecError (E0643) where each lane can't have one of each.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST_OPEN
    each = (limit - _in_use() - _OTHERS) // 3
    if each < lanes:
        needed = _in_use() + _OTHERS + 3 * lanes
        message = f"the system allows {limit} open files, and the run needs {needed}"
        help = (f"allow more: `ulimit -n {max(256, needed)}`",) + (("or use `--lanes 1`",) if lanes > 1 else ())
        raise error("E0643", message, help=help)
    return min(MOST_OPEN, each)


def _in_use() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 3


class Descriptors:
    """Opens files by index when they are needed and closes the one unused for longest beyond
    `limit`.

    `opener` gives a new descriptor for an index. A borrowed descriptor stays open until it is given
    back, so there may be more than `limit` open while more are borrowed.
    """

    def __init__(self, opener: Callable[[int], int], limit: int) -> None:
        self._opener, self._limit = opener, limit
        self._lock = Lock()
        self._idle: OrderedDict[int, int] = OrderedDict()
        self._busy: dict[int, tuple[int, int]] = {}  # index to descriptor and number of borrowers

    @contextmanager
    def borrow(self, index: int) -> Iterator[int]:
        """The descriptor of file `index`, for positioned reads and writes alone. Raises what the
        opener does."""
        with self._lock:
            descriptor = self._take(index)
        try:
            yield descriptor
        finally:
            with self._lock:
                self._give_back(index)

    @contextmanager
    def borrow_each(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """The same of several files at once, which may be the same one."""
        taken: list[int] = []
        try:
            with self._lock:
                for index in indices:
                    taken.append(self._take(index))
            yield taken
        finally:
            with self._lock:
                for index, _ in zip(indices, taken, strict=False):
                    self._give_back(index)

    def _take(self, index: int) -> int:
        if index in self._busy:
            descriptor, borrowers = self._busy[index]
        else:
            descriptor, borrowers = self._idle.pop(index, -1), 0
            if descriptor < 0:
                descriptor = self._opener(index)
        self._busy[index] = descriptor, borrowers + 1
        return descriptor

    def _give_back(self, index: int) -> None:
        descriptor, borrowers = self._busy.pop(index)
        if borrowers > 1:
            self._busy[index] = descriptor, borrowers - 1
            return
        self._idle[index] = descriptor
        while self._idle and len(self._idle) + len(self._busy) > self._limit:
            _, oldest = self._idle.popitem(last=False)
            os.close(oldest)

    def close(self) -> None:
        """Closes every file; none may be borrowed."""
        with self._lock:
            while self._idle:
                os.close(self._idle.popitem()[1])
