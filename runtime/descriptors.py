"""A bounded number of open files, shared by threads."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock


class Descriptors:
    """Opens files by index when they are needed and closes the one unused for longest beyond `limit`.

    `opener` gives a new descriptor for an index. A borrowed descriptor stays open until it is given back, so there may
    be more than `limit` open while more are borrowed.
    """

    def __init__(self, opener: Callable[[int], int], limit: int) -> None:
        self._opener, self._limit = opener, limit
        self._lock = Lock()
        self._idle: OrderedDict[int, int] = OrderedDict()
        self._busy: dict[int, tuple[int, int]] = {}  # index to descriptor and number of borrowers

    @contextmanager
    def borrow(self, index: int) -> Iterator[int]:
        """The descriptor of file `index`, for positioned reads and writes alone. Raises what the opener does."""
        with self._lock:
            if index in self._busy:
                descriptor, borrowers = self._busy[index]
            else:
                descriptor, borrowers = self._idle.pop(index, -1), 0
                if descriptor < 0:
                    descriptor = self._opener(index)
            self._busy[index] = descriptor, borrowers + 1
        try:
            yield descriptor
        finally:
            with self._lock:
                self._give_back(index)

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
