"""The bytes of an output, read once: checksums and counts of infinities and NaNs, compared with the
record."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import field

from ...grammar.diagnostic import Diagnostic
from ...grammar.records import dataclass
from ..files.faults import reason, show
from ..files.syscalls import read_all
from ..machine.lanes import Lanes
from ..resume.checksums import Checksum
from ..resume.record import Record
from ..stream.nonfinite import count_nonfinite
from .contents import OutputContents, Place
from .report import Check, Verdict, check

PIECE = 8 << 20
"""Bytes that a lane reads at a time: whole elements of every dtype, and whole words of a
checksum."""


@dataclass(slots=True)
class Seen:
    """The results for the bytes of a tensor. `fault`: why they can't be read."""

    total: Checksum
    non_finite: int = 0
    fault: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def checksum(self) -> str:
        return self.total.value()


def read_data(contents: OutputContents, lanes: int, cancel: threading.Event | None = None) -> dict[str, Seen]:
    """Reads every tensor, in pieces that the lanes share. Raises Cancelled."""
    seen = {name: Seen(Checksum(place.tensor.nbytes)) for name, place in contents.tensors.items()}
    pieces = [(n, at) for n, p in contents.tensors.items() for at in range(0, p.tensor.nbytes, PIECE)]
    with Lanes(lanes, cancel) as threads:
        buffers = [bytearray(0)] * threads.count

        def work(lane: int, item: int) -> None:
            name, at = pieces[item]
            place, result = contents.tensors[name], seen[name]
            size = min(PIECE, place.tensor.nbytes - at)
            if len(buffers[lane]) < size:
                buffers[lane] = bytearray(size)
            view = memoryview(buffers[lane])[:size]
            fault = _fill(place, at, view)
            if fault is not None:
                result.fault = fault
                return
            result.total.add(view, at)
            found = count_nonfinite(view, place.tensor.dtype)
            with result.lock:
                result.non_finite += found

        threads.spread(len(pieces), work)
    return seen


def _fill(place: Place, at: int, view: memoryview) -> str | None:
    try:
        descriptor = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            whole = read_all(descriptor, view, place.tensor.start + at) == view.nbytes
        finally:
            os.close(descriptor)
    except OSError as error:
        return reason(error)
    return None if whole else "the file ends early"


def check_checksums(contents: OutputContents, record: Record, seen: Mapping[str, Seen]) -> Check:
    """Every tensor whose checksum is recorded still has it."""
    found, known, unknown = [], 0, 0
    for name, result in seen.items():
        recorded, place = record.tensors.get(name), contents.tensors[name]
        if result.fault is not None:
            message = f"tensor `{show(name)}` can't be read: {result.fault}"
            found.append(Diagnostic("E0652", message, file=place.path))
        elif recorded is None or recorded.checksum is None:
            unknown += recorded is not None
        elif result.checksum != recorded.checksum:
            message = f"the bytes of tensor `{show(name)}` are not those that were written"
            note = f"their checksum is {result.checksum}, and was {show(recorded.checksum)}"
            found.append(Diagnostic("E0652", message, notes=(note,), file=place.path))
        else:
            known += 1
    copies = f"{unknown:,} were copied and have none: `--rerun all` compares them with the inputs"
    if unknown and not known:
        return check("checksums", copies, found, copies)
    return check("checksums", f"{known:,} of {len(seen):,} tensors" + (f"; {copies}" if unknown else ""), found)


def check_non_finite(contents: OutputContents, record: Record | None, seen: Mapping[str, Seen]) -> Check:
    """Infinities and NaNs, counted afresh and compared with the record.

    Copies are not always counted when they are made, which stands as 0 in the record; so a 0 counts
    for nothing where the bytes are those that were written, or where that is not known.
    """
    found, having, total = [], 0, 0
    for name, result in seen.items():
        having, total = having + (result.non_finite > 0), total + result.non_finite
        recorded = record.tensors.get(name) if record is not None else None
        if recorded is None or result.fault is not None or recorded.non_finite == result.non_finite:
            continue
        uncounted = recorded.non_finite == 0 and recorded.checksum in (None, result.checksum)
        if not uncounted:
            message = (
                f"tensor `{show(name)}` has {result.non_finite:,} infinities and NaNs, "
                f"and was written with {recorded.non_finite:,}"
            )
            found.append(Diagnostic("E0654", message, file=contents.tensors[name].path))
    detail = f"{total:,} infinities and NaNs in {having:,} tensors" if total else "no infinities, no NaNs"
    return Check("non-finite", Verdict.FAILED if found else Verdict.OK, detail, tuple(found))
