"""Whether stored tensors still have the bytes of their checksums."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ...grammar.records import dataclass
from ..files.opening import is_short, regular
from ..files.syscalls import read_all
from ..machine.lanes import Lanes
from .checksums import Checksum

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """Tensor `tensor` of a plan: `nbytes` bytes from byte `start` of the file at `path`, that
    should have this checksum."""

    tensor: int
    path: str
    start: int
    nbytes: int
    checksum: str | None


def confirm(stored: Sequence[Stored], lanes: int, cancel: threading.Event | None = None) -> set[int]:
    """The tensors whose bytes have their checksum; one that can't be read has not.

    Raises Cancelled; OSError where that can't be determined, as when too many files are open.
    """
    right: list[int] = []

    with Lanes(lanes, cancel) as threads:

        def work(_: int, item: int) -> None:
            found = stored[item]
            if found.checksum is not None and checksum_of(found, threads) == found.checksum:
                right.append(found.tensor)

        threads.spread(len(stored), work)
    return set(right)


def checksum_of(stored: Stored, lanes: Lanes) -> str | None:
    """The checksum of a stored tensor; None where its file ends early or can't be read. Raises as
    `confirm`."""
    total = Checksum(stored.nbytes)
    buffer = memoryview(bytearray(min(_PIECE, stored.nbytes)))
    done = 0
    try:
        with regular(stored.path) as (descriptor, _):
            while done < stored.nbytes:
                lanes.check()
                piece = buffer[: stored.nbytes - done]
                if read_all(descriptor, piece, stored.start + done) < piece.nbytes:
                    return None
                total.add(piece, done)
                done += piece.nbytes
    except OSError as error:
        if is_short(error):
            raise
        return None
    return total.value()
