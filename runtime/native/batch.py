"""Small tensors on the native backend, in batches: adjacent bytes are read and written in one go,
and a pass over tensors of one equivalence class is one call of the compiled kernels.

A batch is as many of them as fit into a lane's share of the memory that the plan allows a single
one. Its passes run in rounds: the first of every tensor, then the second of those that have one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set

import numpy
from numpy.typing import NDArray

from ...compiler.checkpoint.dtypes import SIZES
from ...compiler.ops.table import OPS
from ...compiler.plan.plan import Copy, Pass, Step, Stream, ToFile
from ...compiler.plan.scratch import PAGE, aligned, scratch_layout
from ...grammar.records import dataclass
from ..files.direct import LEAST
from ..stream.batching import BatchSignature, SmallOutput
from ..stream.nonfinite import count_nonfinite
from ..stream.passes import Context
from .bound import BATCHED, BoundPass, Numbers, Scratch, TensorPass
from .library import Kernels
from .select import knows

MOST = 128
"""The most tensors of a batch: the plan does not count the memory of their instructions. Eight take
1.06 times the processor time, one 1.4 times, 512 no less (`benchmarks/batching.py`)."""

REMEMBERED = 256
"""Bound passes that are kept: a plan has some dozens, unless its tensors are all different.
Without, a merge of small tensors takes 1.05 times the processor time."""

Member = SmallOutput | Step
"""A small tensor that is computed, or the copy of one."""


@dataclass(frozen=True, slots=True)
class _Needs:
    """What outputs of one signature need: scratch, and bytes for operands and stores of the pass
    that has most of them."""

    scratch: int
    staged: int


class _Transfers:
    """Ranges of files and the memory that they are read into or written from; adjacent ones are
    merged.

    `ranges` are file, first byte, bytes and place in memory. With `most`, none is longer that
    doesn't begin a page.
    """

    def __init__(self, most: int = 1 << 62) -> None:
        self._most = most
        self.ranges: list[list[int]] = []

    def add(self, file: int, start: int, nbytes: int, place: int) -> None:
        if self.ranges:
            last = self.ranges[-1]
            done = last[2]
            if done + nbytes <= self._most and last[3] + done == place and last[1] + done == start and last[0] == file:
                last[2] += nbytes
                return
        while nbytes > self._most and place % PAGE:
            self.ranges.append([file, start, self._most, place])
            start, nbytes, place = start + self._most, nbytes - self._most, place + self._most
        self.ranges.append([file, start, nbytes, place])


class Batches:
    """Runs the small tensors of a plan."""

    def __init__(self, context: Context, found: Kernels) -> None:
        self._context, self._kernels = context, found
        self._known: dict[BatchSignature, _Needs] = {}
        self._bound: dict[tuple[BatchSignature, int, int], BoundPass] = {}

    def able(self, passes: Sequence[Pass]) -> int | None:
        """What passes over a small tensor need by themselves, in bytes; None where they can't be
        run here."""
        for pass_ in passes:
            known = knows(self._kernels.instructions, pass_, scratch_layout(pass_, compute="F32"))
            if not known or any(OPS[r.op].accumulator not in BATCHED for r in pass_.reductions):
                return None
        needs = _needs_together(passes)
        return needs.scratch + needs.staged

    def run(self, members: Sequence[Member], memory: NDArray[numpy.uint8], watched: Set[int]) -> None:
        """Runs them in `memory`, which is enough for each by itself and is divided among as many
        lanes as possible.

        Copies for the tensors in `watched` are looked at for infinities and NaNs.
        """
        lanes = self._context.lanes.count
        needed = max([self._alone(m) for m in members])
        if needed > len(memory):
            raise RuntimeError(f"a small tensor needs {needed} bytes of scratch, there are {len(memory)}")
        while lanes > 1 and _whole_pages(len(memory) // lanes) < needed:
            lanes -= 1
        share = _whole_pages(len(memory) // lanes) if lanes > 1 else len(memory)
        batches = list(self._batches(members, share, -(-len(members) // (2 * lanes))))
        free = [memory[k * share : (k + 1) * share] for k in range(lanes)]

        def work(_: int, index: int) -> None:
            own = free.pop()
            try:
                members, scratch = batches[index]
                _Batch(self._context, self._bound_to, members, own, scratch, watched).run()
            finally:
                free.append(own)

        self._context.lanes.spread(len(batches), work, lanes)

    def _bound_to(self, signature: BatchSignature, number: int, address: int) -> BoundPass:
        """Pass `number` of a signature, with its scratch at `address`."""
        key = signature, number, address
        found = self._bound.get(key)
        if found is None:
            if len(self._bound) >= REMEMBERED:
                self._bound.clear()
            pass_ = signature.passes[number]
            layout = scratch_layout(pass_, compute="F32")
            found = self._bound[key] = BoundPass(self._kernels, pass_, layout, signature.slots, address)
        return found

    def _needs(self, signature: BatchSignature) -> _Needs:
        needs = self._known.get(signature)
        if needs is None:
            needs = self._known[signature] = _needs_together(signature.passes)
        return needs

    def _alone(self, member: Member) -> int:
        """Bytes that a member needs by itself."""
        if not isinstance(member, SmallOutput):
            return aligned(member.writes)
        needs = self._needs(member.signature)
        return needs.scratch + needs.staged

    def _batches(self, members: Sequence[Member], room: int, most: int) -> Iterator[tuple[Sequence[Member], int]]:
        """Members in order, as many at a time as fit into `room` bytes; and the scratch that they
        need of these."""
        batch: list[Member] = []
        scratch = staged = 0
        for member in members:
            own = (
                self._needs(member.signature) if isinstance(member, SmallOutput) else _Needs(0, aligned(member.writes))
            )
            full = max(scratch, own.scratch) + staged + own.staged > room or len(batch) >= min(most, MOST)
            if batch and full:
                yield batch, scratch
                batch, scratch, staged = [], 0, 0
            batch.append(member)
            scratch, staged = max(scratch, own.scratch), staged + own.staged
        if batch:
            yield batch, scratch


class _Batch:
    """Some members, run in a lane's `memory`: what is read and written from its beginning on,
    `scratch` at its end."""

    def __init__(
        self,
        context: Context,
        bound: Callable[[BatchSignature, int, int], BoundPass],
        members: Sequence[Member],
        memory: NDArray[numpy.uint8],
        scratch: int,
        watched: Set[int],
    ) -> None:
        self._context, self._bound, self._members, self._watched = context, bound, members, watched
        self._data: memoryview = memory.data
        self._address: int = memory.ctypes.data
        self._scratch = self._address + len(memory) - scratch
        self._read = self._written = 0

    def run(self) -> None:
        tally = self._context.tally
        for member in self._members:
            tally.tensor(member.tensor)
        outputs = [m for m in self._members if isinstance(m, SmallOutput)]
        numbers: dict[SmallOutput, Numbers] = {output: list(output.signature.initial) for output in outputs}
        for number in range(max([1, *(len(output.passes) for output in outputs)])):
            self._context.lanes.check()
            # copies are made in the first round
            members = [
                m for m in self._members if (len(m.passes) > number if isinstance(m, SmallOutput) else not number)
            ]
            self._round(number, members, numbers)
        tally.moved(self._read, self._written)

    def _round(self, number: int, members: Sequence[Member], numbers: Mapping[SmallOutput, Numbers]) -> None:
        reads, writes, at = _Transfers(), _Transfers(LEAST - PAGE), 0
        runs = [
            TensorPass(m.passes[number], [], [], numbers[m]) if isinstance(m, SmallOutput) else None for m in members
        ]
        copies: list[tuple[Step, int]] = []
        for k in range(max([1, *(len(run.pass_.stores) for run in runs if run is not None)])):
            for member, run in zip(members, runs, strict=True):
                if run is None:
                    if not k and isinstance(member, Step):
                        copies.append((member, at))
                        at = _copied(member, at, reads, writes)
                elif k < len(run.pass_.stores):
                    store = run.pass_.stores[k]
                    assert isinstance(store, ToFile)
                    size = SIZES[store.dtype]
                    at = -(-at // size) * size
                    run.stores.append(self._address + at)
                    writes.add(store.file, store.start, size * run.pass_.numel, at)
                    at += size * run.pass_.numel
        for k in range(max([0, *(len(run.pass_.operands) for run in runs if run is not None)])):
            for run in runs:
                if run is None or k >= len(run.pass_.operands):
                    continue
                operand = run.pass_.operands[k]
                assert isinstance(operand, Stream)
                size = SIZES[operand.dtype]
                at = -(-at // size) * size
                run.operands.append(self._address + at)
                for extent in operand.extents:
                    reads.add(extent.file, extent.start, extent.nbytes, at)
                    at += extent.nbytes
        for file, start, nbytes, place in reads.ranges:
            self._context.reads.read_into(file, start, self._data[place : place + nbytes])
            self._read += nbytes
        self._look(copies)
        self._compute(number, members, runs)
        for file, start, nbytes, place in writes.ranges:
            self._context.writes.write(file, start, self._data[place : place + nbytes])
            self._written += nbytes

    def _look(self, copies: Sequence[tuple[Step, int]]) -> None:
        """Counts infinities and NaNs in copies, where they are to be counted."""
        for step, place in copies:
            if step.tensor in self._watched:
                tensor = self._context.plan.tensors[step.tensor]
                if found := count_nonfinite(self._data[place : place + step.writes], tensor.dtype):
                    self._context.tally.found(tensor.name, found)

    def _compute(self, number: int, members: Sequence[Member], runs: Sequence[TensorPass | None]) -> None:
        """Runs pass `number` of all members, those of one signature at once."""
        runs_of: dict[BatchSignature, list[TensorPass]] = {}
        for member, run in zip(members, runs, strict=True):
            if run is not None and isinstance(member, SmallOutput):
                runs_of.setdefault(member.signature, []).append(run)
        for signature, together in runs_of.items():
            found = self._bound(signature, number, self._scratch).run(together)
            for k, store in zip(*numpy.nonzero(found), strict=True):
                to = together[k].pass_.stores[store]
                assert isinstance(to, ToFile)
                self._context.not_finite(to, int(found[k, store]))


def _copied(step: Step, at: int, reads: _Transfers, writes: _Transfers) -> int:
    """Adds the transfers of a copy, through memory from place `at` on; where that ends."""
    copy = step.action
    assert isinstance(copy, Copy)
    writes.add(copy.file, copy.start, step.writes, at)
    for extent in copy.extents:
        reads.add(extent.file, extent.start, extent.nbytes, at)
        at += extent.nbytes
    return at


def _needs_together(passes: Sequence[Pass]) -> _Needs:
    scratches = [Scratch.of(p, scratch_layout(p, compute="F32")).nbytes for p in passes]
    return _Needs(max(scratches), max(map(_staged, passes)))


def _whole_pages(nbytes: int) -> int:
    return nbytes // PAGE * PAGE


def _staged(pass_: Pass) -> int:
    """Bytes for what a pass reads and writes, with what it takes to align it."""
    stores = [SIZES[s.dtype] for s in pass_.stores if isinstance(s, ToFile)]
    operands = [SIZES[o.dtype] for o in pass_.operands if isinstance(o, Stream)]
    return sum(aligned(size * pass_.numel) for size in (*stores, *operands))
