"""Carries out a plan: its steps in order. The blocks of a step are spread over lanes (worker
threads), and so are consecutive copies and small tensors.

This module needs no torch. A plan that only copies bytes runs without it; `engine.py` is loaded for
all else.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Iterator, Sequence, Set
from typing import Protocol, TypeVar, cast

from ...compiler.checkpoint.dtypes import FLOATS
from ...compiler.plan.concurrency import ConcurrentOutputs
from ...compiler.plan.plan import Copy, Extent, OutputTensor, Plan, Step
from ...grammar.records import dataclass
from ..machine.lanes import Cancelled, Lanes
from ..machine.memory import Meter
from ..machine.out_of_memory import within_memory
from ..stream.batching import Able, Batchable, Copies, Lone, SmallOutput, parts
from ..stream.interfaces import Progress, Reads, Tally, Writes
from ..stream.nonfinite import count_in

__all__ = ["Cancelled", "Outcome", "Progress", "Reads", "Writes", "execute"]

R = TypeVar("R", bound=Reads)

COPY_PIECE = 1 << 24
"""Bytes that a lane copies at a time, so that large copies are shared, stopped and shown."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did.

    `non_finite` counts the infinities and NaNs written, for every output tensor that has any and
    was computed; those of copied tensors only where the plan makes them an error, as copies aren't
    looked at otherwise. Peaks are measured, in bytes; `bytes_read` counts again what passes read
    again.
    """

    non_finite: dict[str, int]
    peak_host: int
    peak_device: int
    bytes_read: int
    bytes_written: int
    seconds: float


class StepEngine(Protocol):
    """What runs steps that compute; `engine.py` has its only implementation."""

    @property
    def able(self) -> Able | None: ...

    @property
    def lone(self) -> Lone | None: ...

    def run(self, step: Step) -> None: ...

    def run_batchable(self, members: Sequence[SmallOutput | Step], watched: Set[int]) -> None: ...

    def run_concurrently(self, group: ConcurrentOutputs) -> None: ...

    def close(self) -> None: ...


def execute(
    plan: Plan,
    reads: R,
    writes: Writes[R],
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    non_finite: dict[str, int] | None = None,
) -> Outcome:
    """Runs a plan to its end.

    Counts of infinities and NaNs go into `non_finite` as they are found: before the bytes are
    written.

    Setting `cancel` stops all lanes after the blocks they are at and raises Cancelled. What
    `reads`, `writes` and `progress` raise, and KeyboardInterrupt, stop them likewise and are
    raised; outputs are then incomplete. Raises MergecError where the host or the device has no
    memory for it (E0003, E0644), RuntimeError where a plan doesn't fit its own figures.
    """
    began = time.perf_counter()
    meter, tally = Meter(), Tally(progress, non_finite)
    with within_memory(plan), Lanes(plan.lanes, cancel) as lanes:
        engine: StepEngine | None = None
        if any(not isinstance(step.action, Copy) for step in plan.steps):
            module = importlib.import_module(".engine", __package__)
            engine = cast(StepEngine, module.Engine(plan, reads, writes, lanes, meter, tally))
        watched = _watched(plan, tally)
        try:
            for part in parts(plan, engine.able, engine.lone) if engine is not None else parts(plan, None):
                if isinstance(part, Copies):
                    tally.live(meter.host, meter.device)
                    _copy(list(_pieces(plan, part.steps, watched)), reads, writes, lanes, tally)
                    continue
                lanes.check()
                assert engine is not None
                if isinstance(part, Batchable):
                    engine.run_batchable(part.members, watched)
                elif isinstance(part, ConcurrentOutputs):
                    engine.run_concurrently(part)
                else:
                    tally.tensor(part.step.tensor)
                    engine.run(part.step)
        finally:
            if engine is not None:
                engine.close()
    meter.close()
    return Outcome(
        non_finite=dict(sorted(tally.non_finite.items())),
        peak_host=meter.peak_host,
        peak_device=meter.peak_device,
        bytes_read=tally.read,
        bytes_written=tally.written,
        seconds=time.perf_counter() - began,
    )


def _watched(plan: Plan, tally: Tally) -> set[int]:
    """The tensors whose copies are looked at for infinities and NaNs: all floats that nothing is
    known about yet."""
    if plan.on_nonfinite != "error":
        return set()
    return {k for k, t in enumerate(plan.tensors) if t.dtype in FLOATS and t.name not in tally.non_finite}


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes to be copied at once: a range of an input for byte `start` of weight file `file`, of
    these output tensors.

    What isn't finite is counted in ranges of an input, each of one tensor: `counted`.
    """

    tensors: tuple[int, ...]
    source: Extent
    file: int
    start: int
    counted: tuple[tuple[OutputTensor, Extent], ...]


def _pieces(plan: Plan, steps: Sequence[Step], watched: Set[int]) -> Iterator[_Piece]:
    """What the steps copy, cut into pieces; small tensors that are adjacent both in the input and
    in the output are copied together, as far as that leaves something for every lane."""
    waiting: list[_Piece] = []
    nbytes, together = 0, min(COPY_PIECE, sum(step.writes for step in steps) // (2 * plan.lanes))
    for step in steps:
        for piece in _cut(plan, step, watched):
            if waiting and not (_adjacent(waiting[-1], piece) and nbytes + piece.source.nbytes <= together):
                yield _joined(waiting, nbytes)
                waiting, nbytes = [], 0
            waiting.append(piece)
            nbytes += piece.source.nbytes
    if waiting:
        yield _joined(waiting, nbytes)


def _cut(plan: Plan, step: Step, watched: Set[int]) -> Iterator[_Piece]:
    copy, counted = step.action, plan.tensors[step.tensor] if step.tensor in watched else None
    assert isinstance(copy, Copy)
    start = copy.start
    for extent in copy.extents:
        for offset in range(0, extent.nbytes, COPY_PIECE):
            source = Extent(extent.file, extent.start + offset, min(COPY_PIECE, extent.nbytes - offset))
            yield _Piece((step.tensor,), source, copy.file, start, ((counted, source),) if counted is not None else ())
            start += source.nbytes


def _adjacent(piece: _Piece, other: _Piece) -> bool:
    """Whether the other begins where the piece ends, in the input and in the output."""
    source = piece.source
    return (
        (other.source.file, other.file) == (source.file, piece.file)
        and other.source.start == source.start + source.nbytes
        and other.start == piece.start + source.nbytes
    )


def _joined(pieces: Sequence[_Piece], nbytes: int) -> _Piece:
    """Adjacent pieces as one."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    return _Piece(
        tuple([tensor for piece in pieces for tensor in piece.tensors]),
        Extent(first.source.file, first.source.start, nbytes),
        first.file,
        first.start,
        tuple([counted for piece in pieces for counted in piece.counted]),
    )


def _copy(pieces: Sequence[_Piece], reads: R, writes: Writes[R], lanes: Lanes, tally: Tally) -> None:
    def work(_: int, index: int) -> None:
        piece = pieces[index]
        for tensor in piece.tensors:
            tally.tensor(tensor)
        for owner, source in piece.counted:
            if found := count_in(source, owner.dtype, reads):
                tally.found(owner.name, found)
        writes.copy(reads, piece.source, piece.file, piece.start)
        tally.moved(piece.source.nbytes, piece.source.nbytes)

    lanes.spread(len(pieces), work)
