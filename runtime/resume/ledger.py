"""Which output tensors are complete, and the checksums of their bytes; kept while they are
written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Lock

from ...compiler.plan.owners import Owners
from ...compiler.plan.plan import OutputTensor
from ...grammar.records import dataclass
from .checksums import Checksum, checksums

Finished = Callable[[int, str | None], None]
"""Called once for a tensor, by its index in the plan, when its last byte is written; with its
checksum, or None."""


@dataclass(slots=True)
class _Entry:
    """A tensor: how many of its bytes are to come, and their sum so far, as long as all of them
    were seen."""

    index: int
    start: int
    nbytes: int
    left: int
    seen: bool = True
    sum: Checksum | None = None


class Ledger:
    """Is notified of every write, from any thread, and reports when a tensor is complete.

    A tensor that the kernel copies, or a part of it, has no checksum: its bytes don't pass through
    this process.
    """

    def __init__(self, tensors: Sequence[OutputTensor], finished: Finished | None = None) -> None:
        self._finished = finished
        self._lock = Lock()
        self._owners = Owners(tensors)
        self._entries = {k: _Entry(k, t.start, t.nbytes, t.nbytes) for k, t in enumerate(tensors) if t.nbytes}

    def wrote(self, file: int, start: int, data: memoryview) -> None:
        """`data` (contiguous bytes, of one tensor or several) stands at byte `start` of weight file
        `file`."""
        whole = []
        for entry, first, end in self._parts(file, start, data.nbytes):
            if end - first == entry.nbytes:
                whole.append(entry)
                continue
            with self._lock:
                entry.sum = gathered = entry.sum or Checksum(entry.nbytes)
            gathered.add(data[first - start : end - start], first - entry.start)
            self._count(entry, end - first)
        if whole:
            for entry, total in zip(whole, checksums(data, [(e.start - start, e.nbytes) for e in whole]), strict=True):
                entry.left = 0
                self._tell(entry, f"{total:016x}")

    def copied(self, file: int, start: int, nbytes: int) -> None:
        """`nbytes` bytes stand there that were not seen."""
        for entry, first, end in self._parts(file, start, nbytes):
            entry.seen = False
            self._count(entry, end - first)

    def _parts(self, file: int, start: int, nbytes: int) -> Iterator[tuple[_Entry, int, int]]:
        """The tensors in a range of a file, with where in the file their parts of it begin and
        end."""
        for index in self._owners.within(file, start, nbytes):
            entry = self._entries[index]
            first, end = max(start, entry.start), min(start + nbytes, entry.start + entry.nbytes)
            if first < end:
                yield entry, first, end

    def _count(self, entry: _Entry, nbytes: int) -> None:
        with self._lock:
            entry.left -= nbytes
            complete = entry.left == 0
        if complete:
            self._tell(entry, entry.sum.value() if entry.seen and entry.sum is not None else None)

    def _tell(self, entry: _Entry, checksum: str | None) -> None:
        if self._finished is not None:
            self._finished(entry.index, checksum)
