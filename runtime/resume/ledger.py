"""Which output tensors are complete, and the checksums of their bytes; kept while they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

from ...compiler.owners import Owners
from ...compiler.plan import OutputTensor
from ...grammar.records import dataclass
from .checksums import Checksum

Finished = Callable[[int, str | None], None]
"""Called once for a tensor, by its index in the plan, when its last byte is written; with its checksum, or None."""


@dataclass(slots=True)
class _Entry:
    index: int
    start: int
    left: int
    sum: Checksum | None


class Ledger:
    """Is told of every write, from any thread, and tells when a tensor is complete.

    A tensor that the kernel copies, or a part of it, has no checksum: its bytes don't pass through this process. A
    write lies within one tensor.
    """

    def __init__(self, tensors: Sequence[OutputTensor], finished: Finished | None = None) -> None:
        self._finished = finished
        self._lock = Lock()
        self._owners = Owners(tensors)
        self._entries = {k: _Entry(k, t.start, t.nbytes, Checksum(t.nbytes)) for k, t in enumerate(tensors) if t.nbytes}

    def wrote(self, file: int, start: int, data: memoryview) -> None:
        """`data` (contiguous bytes) stands at byte `start` of weight file `file`."""
        entry = self._entry(file, start)
        if entry is None:
            return
        if (total := entry.sum) is not None:
            total.add(data, start - entry.start)
        self._count(entry, data.nbytes)

    def copied(self, file: int, start: int, nbytes: int) -> None:
        """`nbytes` bytes stand there that were not seen."""
        entry = self._entry(file, start)
        if entry is not None:
            entry.sum = None
            self._count(entry, nbytes)

    def _entry(self, file: int, start: int) -> _Entry | None:
        index = self._owners.of(file, start)
        return self._entries[index] if index is not None else None

    def _count(self, entry: _Entry, nbytes: int) -> None:
        with self._lock:
            entry.left -= nbytes
            complete = entry.left == 0
        if complete and self._finished is not None:
            self._finished(entry.index, entry.sum.value() if entry.sum is not None else None)
