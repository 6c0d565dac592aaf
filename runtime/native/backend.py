"""The native backend of a run: its lanes read operands, run code in the compiled kernels, and write
the results."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from ...compiler.checkpoint.dtypes import SIZES, held_bytes
from ...compiler.ops.table import OPS
from ...compiler.plan.plan import (
    CHUNK,
    Argument,
    Held,
    Instruction,
    Mask,
    Pass,
    Product,
    Reduction,
    Register,
    Scalar,
    Stream,
    ToBuffer,
    ToFile,
)
from ...compiler.plan.scratch import ScratchLayout
from ..machine.host import HostArena, HostBuffer
from ..machine.memory import Arena
from ..reduce.counting import BINS, DIGIT, LaneHistograms
from ..reduce.quantile import Quantile
from ..reduce.reducer import Attributes, Partials, Reducer, Result
from ..reduce.reducers import REDUCERS
from ..reduce.selection import Magnitudes, RankSelection
from ..reduce.windows import Counting, everything
from ..stream.passes import Context
from ..stream.ranges import file_ranges
from .encode import Made, fields_of
from .library import RANGE, SEEN, STEP, Kernels, kernels
from .select import REDUCTIONS, knows, name_of, piece_of, stored_by

LANES = 64
TABLES = 2

_Counted = tuple[Counting, NDArray[numpy.int64], NDArray[Any]]
"""A window of a round; how many magnitudes of a block lie above it; what was seen of the block's
chunks (SEEN)."""

Row = tuple[float, ...]
"""One instruction with all that it needs, in the order of STEP's fields."""

_FIELDS = STEP.names or ()

_Known = dict[int, tuple[Instruction, Row]]
"""Instructions that were bound before, by identity."""


class Native:
    """The compiled kernels for one run, on the CPU in float32."""

    samples = True

    def __init__(self, context: Context, found: Kernels) -> None:
        self.context, self.kernels = context, found
        self._rows: dict[tuple[int, ScratchLayout], _Known] = {}

    @classmethod
    def of(cls, context: Context) -> Native | None:
        """None where the run has no use for compiled kernels, or there are none."""
        found = kernels() if context.plan.compute == "F32" else None
        return cls(context, found) if found is not None else None

    def knows(self, pass_: Pass, layout: ScratchLayout) -> bool:
        """Whether all of a pass can run here."""
        return knows(self.kernels.instructions, pass_, layout)

    def reducer(self, op: str, attributes: Attributes, numel: int) -> Reducer:
        return REDUCERS[op](attributes, numel, 32)

    def lane(self, pass_: Pass, layout: ScratchLayout, arena: Arena, index: int) -> NativeLane:
        del index
        assert isinstance(arena, HostArena)
        return NativeLane(
            self.context, self.kernels, pass_, layout, arena, self._rows.setdefault((arena.address, layout), {})
        )


class NativeLane:
    """What one lane does in one pass.

    Registers and masks lie at the beginning of their areas, as long as a piece. What instructions
    leave for reducers (`_found`, by reduction) is a few numbers per chunk. `rows_of` has
    instructions by identity that were bound before, to the same memory, and are the same for every
    tensor: steps of plans share them (`compiler/schedule/templates.py`).
    """

    def __init__(
        self,
        context: Context,
        found: Kernels,
        pass_: Pass,
        layout: ScratchLayout,
        arena: HostArena,
        rows_of: _Known,
    ) -> None:
        self._context, self._kernels, self._rows_of = context, found, rows_of
        self._pass, self._layout, self._arena = pass_, layout, arena
        piece = piece_of(pass_, layout)
        assert piece is not None
        self._piece = piece
        self._again = False
        self._rows: list[Row] = []
        self._steps = numpy.empty(0, STEP)
        self._loaded: list[int] = []
        self._active: Sequence[tuple[int, Reducer]] = ()
        self._chunks = -(-pass_.block // CHUNK)
        self._found: dict[int, NDArray[Any]] = {}
        self._windows: list[_Counted] = []
        self._ordered: dict[tuple[int, int], NDArray[numpy.uint8]] = {}
        self._counted: dict[int, NDArray[numpy.uint32]] = {}
        self._counters = numpy.zeros(max(1, len(pass_.code) + len(pass_.stores)), numpy.int64)
        self._lanes = numpy.empty((max(1, len(pass_.reductions)), LANES))

    def begin(self, code: tuple[Instruction, ...], active: Sequence[tuple[int, Reducer]], *, again: bool) -> None:
        self._again, self._active = again, active
        self._rows, self._loaded, self._found = [], [], {}
        self._windows, self._ordered, self._counted = [], {}, {}
        for i, instruction in enumerate(code):
            known = self._rows_of.get(id(instruction))
            if known is not None:
                self._rows.append(known[1])
                continue
            self._bind(i, instruction)
            if _same_everywhere(instruction):
                # the instruction too, so that no other one gets its identity
                self._rows_of[id(instruction)] = instruction, self._rows[-1]
        for i, reducer in active:
            self._reduce(i, self._pass.reductions[i], reducer)
        if not again:
            for i, store in enumerate(self._pass.stores):
                self._store(i, store)
        self._steps = numpy.array(self._rows, STEP)

    def run(self, first: int, count: int) -> None:
        self._counters.fill(0)
        read = self._compute(first, count)
        for i, reducer in self._active:
            self._feed(i, reducer, first, count)
        self._feed_windows(first, count)
        written = 0 if self._again else self._write(first, count)
        self._context.tally.moved(read, written, again=self._again)

    # --- instructions

    def _add(self, name: str, **fields: float) -> None:
        self._rows.append(_row({"op": self._kernels.instructions[name], **fields}))

    def _bind(self, i: int, instruction: Instruction) -> None:
        name = name_of(instruction, self._pass)
        assert name is not None
        counter, scratch = self._counters[i:].ctypes.data, self._arena.address + self._layout.shared.start
        named = self._kernels.instructions
        fields = fields_of(instruction, name, named, self._address, counter=counter, scratch=scratch)
        values = {k: v.make(*map(self._value, v.of)) if isinstance(v, Made) else v for k, v in fields.items()}
        if instruction.op == "load":
            values |= self._source(int(dict(instruction.attributes)["operand"]))
        self._rows.append(_row(values))

    def _source(self, index: int) -> dict[str, float]:
        """Where a load reads from."""
        operand = self._pass.operands[index]
        if isinstance(operand, Held):
            return {"a": self._place(operand), "u": 1}
        if isinstance(operand, Product):
            factors = {"a": self._place(operand.left), "b": self._place(operand.right)}
            sizes = {"u": operand.width, "v": operand.inner, "w": operand.numel // max(1, operand.width)}
            return {**factors, **sizes}
        area = self._layout.operands[index]
        assert area is not None
        if index not in self._loaded:
            self._loaded.append(index)
        return {"a": self._arena.address + area.start}

    def _place(self, held: Held) -> int:
        """The address of what is held."""
        buffer = self._context.buffers[held.buffer]
        assert isinstance(buffer, HostBuffer)
        return buffer.address + held_bytes(held.dtype, held.first)

    def _store(self, i: int, store: ToFile | ToBuffer) -> None:
        a, counter = self._address(store.value), self._counters[len(self._pass.code) + i :].ctypes.data
        if isinstance(store, ToBuffer):
            buffer = self._context.buffers[store.buffer]
            assert isinstance(buffer, HostBuffer)
            self._add(stored_by(store), out=buffer.address, a=a, c=counter, u=1)
            return
        area = self._layout.stores[i]
        assert area is not None
        self._add(stored_by(store), out=self._arena.address + area.start, a=a, c=counter)

    def _reduce(self, i: int, reduction: Reduction, reducer: Reducer) -> None:
        places = [self._address(a) for a in reduction.args if isinstance(a, Register | Mask)]
        if isinstance(reducer, Magnitudes):
            self._select(i, places[0], reducer)
            return
        if isinstance(reducer, Quantile):
            self._order(i, places[0], reducer)
            return
        found = self._found[i] = numpy.zeros(self._chunks)
        op = REDUCTIONS[reduction.op][0]
        if OPS[reduction.op].accumulator == "sum":
            b = places[1] if len(places) > 1 else 0
            self._add(op, out=found.ctypes.data, a=places[0], b=b, c=self._lanes[i].ctypes.data)
        else:
            self._add(op, out=found.ctypes.data, a=places[0])

    def _select(self, i: int, a: int, selection: Magnitudes) -> None:
        """Counts into the lane's state of the reduction, in 32-bit words, as there are fewer
        elements than 2^32: TABLES histograms of all magnitudes, or one of each window."""
        if selection.done:
            return
        if isinstance(selection, RankSelection) and selection.counting_ties:
            ties = self._found[i] = numpy.zeros(self._chunks, numpy.int64)
            self._add("ties_v", out=ties.ctypes.data, a=a, u=selection.pattern)
            return
        area = self._layout.states[i]
        assert area is not None
        state = self._arena.bytes[area.start : area.start + area.nbytes].view(numpy.uint32)
        if selection.counting[0].window == everything(selection.width):
            self._count_all(selection.counting[0], a, state[: TABLES * BINS // 2])
            return
        for counting, table in zip(selection.counting, (state[:BINS], state[BINS : 2 * BINS]), strict=False):
            self._window(counting, a, table)

    def _count_all(self, counting: Counting, a: int, tables: NDArray[numpy.uint32]) -> None:
        """All magnitudes; several thresholds of the same numbers are counted once."""
        counted = self._counted.get(a)
        if counted is not None:
            counting.histograms.enter(counted.ctypes.data, lambda: _joined(counted, TABLES))
            return
        self._counted[a] = tables
        self._table(counting.histograms, tables, lambda: _joined(tables, TABLES))
        self._add("histogram_v", out=tables.ctypes.data, a=a)

    def _window(self, counting: Counting, a: int, table: NDArray[numpy.uint32]) -> None:
        self._table(counting.histograms, table, lambda: table)
        window, above = counting.window, numpy.zeros(1, numpy.int64)
        # what is remembered of a chunk is of no use where bins have several patterns
        seen = numpy.zeros(0 if window.shift else self._chunks, SEEN)
        self._windows.append((counting, above, seen))
        b, c = seen.ctypes.data if seen.size else 0, above.ctypes.data
        self._add("window_v", out=table.ctypes.data, a=a, b=b, c=c, u=window.first, v=window.shift)

    def _table(
        self, histograms: LaneHistograms, table: NDArray[numpy.uint32], read: Callable[[], NDArray[numpy.uint32]]
    ) -> None:
        if histograms.enter(table.ctypes.data, read):
            # several times faster than `fill`
            ctypes.memset(table.ctypes.data, 0, table.nbytes)

    def _order(self, i: int, a: int, quantile: Quantile) -> None:
        """Counts into the lane's state of the reduction: two histograms of 32-bit words, or one.

        Quantiles of the same numbers share the counts as long as they look for words with the same
        beginning.
        """
        if quantile.done:
            return
        area = self._layout.states[i]
        assert area is not None
        first = quantile.shift + DIGIT == quantile.width
        counted = self._ordered.get((a, quantile.prefix))
        state = self._arena.bytes[area.start : area.start + area.nbytes] if counted is None else counted
        tables = 2 if first else 1
        counts = state.view(numpy.uint32)[: tables * BINS]
        self._table(quantile.histograms, counts, lambda: _joined(counts, tables))
        if counted is not None:
            return
        self._ordered[a, quantile.prefix] = state
        if first:
            self._add("order_v", out=state.ctypes.data, a=a)
        else:
            self._add("order_digits_v", out=state.ctypes.data, a=a, u=quantile.prefix)

    # --- blocks

    def _compute(self, first: int, count: int) -> int:
        """Reads the block's operands and runs the code over it; bytes read."""
        files: list[int] = []
        ranges: list[tuple[int, int, int]] = []
        for index in self._loaded:
            operand, area = self._pass.operands[index], self._layout.operands[index]
            assert isinstance(operand, Stream)
            assert area is not None
            at = area.start
            for file, start, nbytes in file_ranges(operand, first, count):
                files.append(file)
                ranges.append((start, nbytes, at))
                at += nbytes
        code = self._steps.ctypes.data, len(self._steps), first, count, self._piece
        with self._context.reads.borrowed(files) as descriptors:
            base, missing = self._arena.address, len(descriptors) < len(files)
            rows = [(d, start, n, base + at) for d, (start, n, at) in zip(descriptors, ranges, strict=False)]
            wanted = numpy.array(rows, RANGE)
            done = 0 if missing else self._kernels.read_and_run(wanted.ctypes.data, len(rows), *code)
        if missing or done < len(ranges):
            for file, (start, nbytes, at) in zip(files[done:], ranges[done:], strict=True):
                self._context.reads.read_into(file, start, self._arena.bytes.data[at : at + nbytes])
            self._kernels.run(*code)
        return sum([nbytes for _, nbytes, _ in ranges])

    def _feed(self, i: int, reducer: Reducer, first: int, count: int) -> None:
        found, chunks = self._found.get(i), -(-count // CHUNK)
        if isinstance(reducer, Partials):
            assert found is not None
            number = chunks if OPS[self._pass.reductions[i].op].accumulator == "sum" else 1
            reducer.keep(first, found[:number].tolist())
        elif isinstance(reducer, RankSelection) and found is not None:
            for k, number in enumerate(found[:chunks].tolist()):
                reducer.tie(first // CHUNK + k, number)

    def _feed_windows(self, first: int, count: int) -> None:
        chunks = -(-count // CHUNK)
        for counting, above, seen in self._windows:
            counting.passed(int(above[0]))
            for k, number in enumerate(seen["found"][:chunks].tolist()):
                if number:
                    counting.remember(first // CHUNK + k, _bins(seen[k], number))

    def _write(self, first: int, count: int) -> int:
        written = 0
        for i, (store, area) in enumerate(zip(self._pass.stores, self._layout.stores, strict=True)):
            if isinstance(store, ToBuffer):
                continue
            assert area is not None
            size = SIZES[store.dtype]
            self._context.not_finite(store, int(self._counters[len(self._pass.code) + i]))
            self._context.writes.write(store.file, store.start + first * size, self._arena.host(area)[: count * size])
            written += count * size
        return written

    # --- arguments

    def _address(self, place: Argument) -> int:
        assert isinstance(place, Register | Mask)
        areas = self._layout.registers if isinstance(place, Register) else self._layout.masks
        return self._arena.address + areas[place.index].start

    def _value(self, argument: Argument) -> Result:
        assert not isinstance(argument, Register | Mask)
        return self._context.scalars[argument.index] if isinstance(argument, Scalar) else argument.value


def _row(fields: Mapping[str, float]) -> Row:
    return tuple([fields.get(name, 0) for name in _FIELDS])


def _same_everywhere(instruction: Instruction) -> bool:
    """Whether an instruction means the same in every pass of its layout: nothing of a tensor's own
    is in it."""
    own = instruction.op in ("load", "bernoulli") or any(isinstance(a, Scalar) for a in instruction.args)
    return not own


def _joined(tables: NDArray[numpy.uint32], number: int) -> NDArray[numpy.uint32]:
    """The sum of that many consecutive tables, a power of two."""
    while number > 1:
        half = tables.size // 2
        tables, number = tables[:half] + tables[half:], number // 2
    return tables


def _bins(seen: Any, number: int) -> dict[int, int] | None:
    """What was seen of a chunk's bins, None where they are many."""
    if number < 0:
        return None
    return dict(zip(seen["bin"][:number].tolist(), seen["count"][:number].tolist(), strict=True))
