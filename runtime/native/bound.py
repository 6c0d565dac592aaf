"""A pass over one of many small tensors, as instructions that lack only what differs between
tensors.

Rows are made once for all tensors of an equivalence class. For a batch they are repeated, once per
tensor, and the columns that differ are filled in: where operands and results lie, numbers computed
from the weights, keys of masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from ...compiler.ops.table import OPS, SCALARS
from ...compiler.plan.plan import (
    Argument,
    Constant,
    Instruction,
    Mask,
    Pass,
    Reduction,
    Register,
    Scalar,
    ScalarCode,
    ToFile,
)
from ...compiler.plan.scratch import ScratchLayout, aligned
from ...grammar.records import dataclass
from ..reduce.reducer import JOINS, Attributes, Result, Threshold, rank_of
from ..reduce.selection import settled
from ..stream.summation import LANES
from .encode import Made, fields_of, key_of
from .library import STEP, Kernels
from .select import REDUCTIONS, name_of, piece_of

BATCHED = (*JOINS, "magnitudes")
"""The accumulators that batches support."""

Numbers = list[Any]
"""A tensor's own numbers, by their slots: floats and thresholds."""

Fill = Callable[[Numbers], float]


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where a pass has what it needs only while it runs, from the beginning of a lane's share:
    registers and masks of a piece, memory of kernels, and one word per element for each threshold
    (by reduction); `nbytes` in all."""

    registers: tuple[int, ...]
    masks: tuple[int, ...]
    shared: int
    words: Mapping[int, int]
    nbytes: int

    @classmethod
    def of(cls, pass_: Pass, layout: ScratchLayout) -> Scratch:
        piece, end = piece_of(pass_, layout), 0
        assert piece is not None
        piece = min(piece, pass_.numel)

        def area(nbytes: int) -> int:
            nonlocal end
            start, end = end, end + aligned(nbytes)
            return start

        registers = tuple([area(4 * piece) for _ in range(pass_.registers)])
        masks = tuple([area(piece) for _ in range(pass_.masks)])
        shared = area(layout.shared.nbytes if any(i.op == "row_rank" for i in pass_.code) else 0)
        thresholds = [i for i, r in enumerate(pass_.reductions) if OPS[r.op].result == "threshold"]
        return cls(registers, masks, shared, {i: area(4 * pass_.numel) for i in thresholds}, end)


@dataclass(frozen=True, slots=True)
class TensorPass:
    """A pass over one tensor: where its operands and stores lie in memory, and the tensor's
    numbers."""

    pass_: Pass
    operands: list[int]
    stores: list[int]
    numbers: Numbers


class BoundPass:
    """A pass bound to a lane's memory, of which `address` is the beginning; `slots` says where a
    tensor has its numbers."""

    def __init__(
        self, found: Kernels, pass_: Pass, layout: ScratchLayout, slots: Mapping[Scalar | Constant, int], address: int
    ) -> None:
        self._kernels, self._pass, self._slots = found, pass_, slots
        self._address, self._scratch = address, Scratch.of(pass_, layout)
        piece = piece_of(pass_, layout)
        assert piece is not None
        self._piece = piece
        self._kept = numpy.zeros(max(1, len(pass_.code)), numpy.int64)
        self._lanes = numpy.empty((max(1, len(pass_.reductions)), LANES))
        self._rows: list[dict[str, Any]] = []
        self._loads: list[tuple[int, int]] = []
        self._stores: list[int] = []
        self._keyed: list[tuple[int, int]] = []
        self._reductions: list[int] = []
        self._ranks: dict[int, Callable[[Numbers], int]] = {}
        self._fills: list[tuple[int, str, Fill]] = []
        for i, instruction in enumerate(pass_.code):
            self._bind(i, instruction)
        for i, reduction in enumerate(pass_.reductions):
            self._reduce(i, reduction)
        for store in pass_.stores:
            assert isinstance(store, ToFile)
            self._stores.append(self._add(f"store_{store.dtype}", a=self._place(store.value)))
        self._base = numpy.zeros(len(self._rows), STEP)
        for row, values in zip(self._base, self._rows, strict=True):
            for field, value in values.items():
                row[field] = value
        self._scalars = [self._scalar(code) for code in pass_.scalars]

    def run(self, runs: Sequence[TensorPass]) -> NDArray[numpy.int64]:
        """Runs the pass over some tensors, and puts what its reductions and scalar code give among
        their numbers.

        How many infinities and NaNs each of a tensor's stores has, one row per tensor.
        """
        number = len(runs)
        steps = numpy.empty((number, len(self._base)), STEP)
        steps[:] = self._base
        for row, k in self._loads:
            steps["a"][:, row] = [run.operands[k] for run in runs]
        found = numpy.zeros((number, max(1, len(self._stores))), numpy.int64)
        for k, row in enumerate(self._stores):
            steps["out"][:, row] = [run.stores[k] for run in runs]
            steps["c"][:, row] = _addresses(found[:, k])
        results = numpy.zeros((number, max(1, len(self._reductions)), 2), numpy.uint64)
        for k, row in enumerate(self._reductions):
            steps["out"][:, row] = _addresses(results[:, k, 0])
        for row, i in self._keyed:
            steps["u"][:, row] = numpy.array([key_of(run.pass_.code[i]) for run in runs], numpy.uint64)
        for row, field, fill in self._fills:
            kind = numpy.float64 if field in "xy" else numpy.uint64
            steps[field][:, row] = numpy.array([fill(run.numbers) for run in runs], kind)
        ranks = {k: [rank(run.numbers) for run in runs] for k, rank in self._ranks.items()}
        for k, sought in ranks.items():
            steps["u"][:, self._reductions[k]] = [rank if rank < self._pass.numel else 0 for rank in sought]
        self._kernels.run_each(steps.ctypes.data, len(self._base), number, self._pass.numel, self._piece)
        for k, reduction in enumerate(self._pass.reductions):
            slot = self._slots[reduction.out]
            if k in ranks:
                self._thresholds(results[:, k], ranks[k], runs, slot)
                continue
            join = JOINS[OPS[reduction.op].accumulator]
            for run, partial in zip(runs, results[:, k, 0].view(numpy.float64).tolist(), strict=True):
                run.numbers[slot] = join([partial])
        for out, function, arguments in self._scalars:
            for run in runs:
                numbers = run.numbers
                numbers[out] = function(*[numbers[slot] for slot in arguments])
        return found

    def _thresholds(
        self, found: NDArray[numpy.uint64], ranks: Sequence[int], runs: Sequence[TensorPass], slot: int
    ) -> None:
        numel = self._pass.numel
        for run, rank, (bits, extra) in zip(runs, ranks, found.tolist(), strict=True):
            run.numbers[slot] = settled(rank, numel, 32) or Threshold(bits, 0, extra)

    # --- instructions

    def _add(self, name: str, **values: float) -> int:
        self._rows.append({"op": self._kernels.instructions[name], **values})
        return len(self._rows) - 1

    def _bind(self, i: int, instruction: Instruction) -> None:
        name, named = name_of(instruction, self._pass), self._kernels.instructions
        assert name is not None
        row, counter, scratch = len(self._rows), self._kept[i:].ctypes.data, self._address + self._scratch.shared
        fixed: dict[str, Any] = {}
        for field, value in fields_of(instruction, name, named, self._place, counter=counter, scratch=scratch).items():
            if not isinstance(value, Made):
                fixed[field] = value
            elif any(isinstance(a, Scalar) for a in value.of):
                self._fills.append((row, field, self._filling(value)))
            else:
                fixed[field] = value.make(*[a.value for a in value.of if isinstance(a, Constant)])
        self._rows.append(fixed)
        if instruction.op == "load":
            self._loads.append((row, int(dict(instruction.attributes)["operand"])))
        elif instruction.op == "bernoulli":
            self._keyed.append((row, i))

    def _filling(self, value: Made) -> Fill:
        make, slots = value.make, [self._slot(a) for a in value.of]
        return lambda numbers: make(*[numbers[slot] for slot in slots])

    def _reduce(self, i: int, reduction: Reduction) -> None:
        places = [self._place(a) for a in reduction.args if isinstance(a, Register | Mask)]
        accumulator = OPS[reduction.op].accumulator
        if accumulator == "magnitudes":
            self._reductions.append(self._add("kth_v", a=places[0], c=self._address + self._scratch.words[i]))
            self._ranks[i] = self._rank(reduction)
        elif accumulator == "sum":
            b = places[1] if len(places) > 1 else 0
            name, scratch = REDUCTIONS[reduction.op][0], self._lanes[i].ctypes.data
            self._reductions.append(self._add(name, a=places[0], b=b, c=scratch))
        else:
            self._reductions.append(self._add(REDUCTIONS[reduction.op][0], a=places[0]))

    def _rank(self, reduction: Reduction) -> Callable[[Numbers], int]:
        """How many elements a threshold keeps; a number computed from the weights differs between
        tensors."""
        attributes: Attributes = dict(reduction.attributes)
        slots = [self._slot(a) for a in reduction.args if isinstance(a, Scalar | Constant)]
        names, numel = OPS[reduction.op].numbers, self._pass.numel
        if not slots:
            rank = rank_of(attributes, numel)
            return lambda _: rank
        return lambda n: rank_of(dict(attributes) | {k: n[s] for k, s in zip(names, slots, strict=True)}, numel)

    def _scalar(self, code: ScalarCode) -> tuple[int, Callable[..., Result], list[int]]:
        return self._slots[code.out], SCALARS[code.op], [self._slots[a] for a in code.args]

    def _slot(self, argument: Argument) -> int:
        assert isinstance(argument, Scalar | Constant)
        return self._slots[argument]

    def _place(self, block: Argument) -> int:
        assert isinstance(block, Register | Mask)
        places = self._scratch.registers if isinstance(block, Register) else self._scratch.masks
        return self._address + places[block.index]


def _addresses(column: NDArray[Any]) -> NDArray[numpy.uint64]:
    """The address of each element of a column."""
    first, stride = column.ctypes.data, column.strides[0]
    return (numpy.arange(len(column), dtype=numpy.uint64) * numpy.uint64(stride)) + numpy.uint64(first)
