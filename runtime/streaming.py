"""One pass: its code compiled to kernels, its blocks streamed through the lanes, as often as its reductions need."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..compiler.ops import OPS
from ..compiler.plan import (
    CHUNK,
    Argument,
    Constant,
    Held,
    Instruction,
    Layout,
    Mask,
    OutputTensor,
    Pass,
    Plan,
    Reduction,
    Register,
    Scalar,
    ToBuffer,
    ToFile,
)
from ..compiler.scalars import SCALARS
from .devices import Arena, Device, Stream, torch_dtype
from .kernels.elementwise import ELEMENTWISE, ELEMENTWISE_CPU
from .kernels.reductions import REDUCTIONS, Reducer
from .kernels.values import Block, Number, Result, Threshold, Value
from .lanes import Lanes
from .operands import Operands
from .ports import Reads, Tally, Writes

_Call = Callable[[Block], int]
"""One instruction on one block; returns the bytes that it read from files."""


@dataclass(frozen=True, slots=True)
class Context:
    """What all passes of a run share; `scalars` and `buffers` change as steps run.

    `tensors` are the output's, in the order of their files and bytes.
    """

    plan: Plan
    device: Device
    reads: Reads
    writes: Writes[Any]
    lanes: Lanes
    tally: Tally
    scalars: list[Result]
    buffers: dict[int, torch.Tensor]
    tensors: list[OutputTensor]


def run_pass(context: Context, pass_: Pass, layout: Layout, arenas: Sequence[Arena], streams: Sequence[Stream]) -> None:
    """Runs a pass to its end; there are as many arenas as lanes can be busy with it."""
    compute = torch_dtype(context.plan.compute)
    reducers = [REDUCTIONS[r.op](_attributes(context, r), pass_.numel, compute) for r in pass_.reductions]
    lanes = [_Lane(context, pass_, layout, arena, stream) for arena, stream in zip(arenas, streams)]

    def stream(code: tuple[Instruction, ...], active: list[int], *, again: bool) -> list[int]:
        """One round over all blocks; which of the active reductions need another."""

        def work(lane: int, index: int) -> None:
            first = index * pass_.block
            count = min(pass_.block, pass_.numel - first)
            with streams[lane].current():
                lanes[lane].run(code, first, count, [(i, reducers[i]) for i in active], again=again)

        context.lanes.spread(-(-pass_.numel // pass_.block) if pass_.numel else 0, work)
        for i in active:
            reducers[i].finish_round()
        return [i for i in active if not reducers[i].done]

    active = stream(pass_.code, list(range(len(reducers))), again=False)
    while active:
        active = stream(needed(pass_.code, [pass_.reductions[i] for i in active]), active, again=True)
    for reduction, reducer in zip(pass_.reductions, reducers, strict=True):
        context.scalars[reduction.out.index] = reducer.result()
    for scalar in pass_.scalars:
        context.scalars[scalar.out.index] = SCALARS[scalar.op](*(_plain(context, a) for a in scalar.args))


def needed(code: tuple[Instruction, ...], reductions: Sequence[Reduction]) -> tuple[Instruction, ...]:
    """The instructions that the reductions' arguments depend on; registers may be used more than once."""
    live: set[Argument] = {a for r in reductions for a in r.args}
    kept = []
    for instruction in reversed(code):
        if instruction.out in live:
            kept.append(instruction)
            live.discard(instruction.out)
            live.update(a for a in instruction.args if isinstance(a, Register | Mask))
    return tuple(reversed(kept))


def _attributes(context: Context, reduction: Reduction) -> dict[str, Any]:
    """A reduction's attributes, and its inputs that are numbers under their names."""
    numbers = [_plain(context, a) for a in reduction.args if isinstance(a, Scalar | Constant)]
    return dict(reduction.attributes) | dict(zip(OPS[reduction.op].numbers, numbers, strict=True))


def _plain(context: Context, argument: Scalar | Constant) -> float | dict[int, int]:
    value = context.scalars[argument.index] if isinstance(argument, Scalar) else argument.value
    if isinstance(value, Threshold):
        raise RuntimeError("a threshold is not a number")
    return value


class _Lane:
    """What one lane needs for one pass: typed views of its arena, numbers on the device."""

    def __init__(self, context: Context, pass_: Pass, layout: Layout, arena: Arena, stream: Stream) -> None:
        self._context, self._pass, self._layout = context, pass_, layout
        self._arena, self._stream = arena, stream
        self._compute = torch_dtype(context.plan.compute)
        self._kernels = ELEMENTWISE if context.device.accelerator else ELEMENTWISE_CPU
        self._registers = [arena.typed(a, self._compute) for a in layout.registers]
        self._masks = [arena.typed(a, torch.bool) for a in layout.masks]
        self._states = [arena.area(a) if a is not None else None for a in layout.states]
        self._shared = arena.area(layout.shared)
        self._operands = Operands(context.reads, pass_, layout, arena, stream, self._compute, context.device)
        self._numbers: dict[float, Number] = {}
        self._calls: dict[tuple[int, int], tuple[tuple[Instruction, ...], list[_Call]]] = {}

    def run(
        self,
        code: tuple[Instruction, ...],
        first: int,
        count: int,
        reducers: Sequence[tuple[int, Reducer]],
        *,
        again: bool,
    ) -> None:
        """One block: code, reductions and, unless the block is run `again`, stores."""
        block = Block(first, count, self._shared)
        read = 0
        for call in self._bound(code, count):
            read += call(block)
        for i, reducer in reducers:
            args_of = tuple(
                self._block(a, count) for a in self._pass.reductions[i].args if isinstance(a, Register | Mask)
            )
            reducer.feed(block, args_of, self._states[i])
        written = 0 if again else self._store(first, count)
        # after this, the lane's staging may be used again
        self._stream.synchronize()
        self._context.tally.moved(read, written, again=again)

    def _bound(self, code: tuple[Instruction, ...], count: int) -> list[_Call]:
        """The code on blocks of `count` elements: looked up once, as all blocks but the last have the same size."""
        key = (id(code), count)
        if key not in self._calls:
            # the code is kept with its calls, so that its identity stays its own
            self._calls[key] = (code, [self._bind(instruction, count) for instruction in code])
        return self._calls[key][1]

    def _bind(self, instruction: Instruction, count: int) -> _Call:
        out, attributes = self._block(instruction.out, count), dict(instruction.attributes)
        if instruction.op == "load":
            index = int(attributes["operand"])
            return lambda block: self._load(index, block, out)
        args = tuple(self._value(a, count) for a in instruction.args)
        numbers = [a.value for a in args if isinstance(a, Number)]
        kernel = self._kernels[instruction.op]

        def fill(_: Block) -> int:
            out.fill_(SCALARS[instruction.op](*numbers))
            return 0

        def call(block: Block) -> int:
            kernel(block, out, args, attributes)
            return 0

        return fill if len(numbers) == len(args) and instruction.op in SCALARS else call

    def _load(self, index: int, block: Block, out: torch.Tensor) -> int:
        operand = self._pass.operands[index]
        if isinstance(operand, Held):
            start = operand.first + block.first
            out.copy_(self._context.buffers[operand.buffer][start : start + block.count])
            return 0
        return self._operands.load(index, block.first, block.count, out)

    def _block(self, place: Register | Mask, count: int) -> torch.Tensor:
        whole = self._registers[place.index] if isinstance(place, Register) else self._masks[place.index]
        return whole if count == self._pass.block else whole[:count]

    def _value(self, argument: Argument, count: int) -> Value:
        match argument:
            case Register() | Mask():
                return self._block(argument, count)
            case Scalar(index):
                value = self._context.scalars[index]
                assert not isinstance(value, dict)  # counts are for scalar code alone
                return value if isinstance(value, Threshold) else self._number(value)
            case Constant(value):
                return self._number(value)

    def _number(self, value: float) -> Number:
        number = self._numbers.get(value)
        # equal numbers may differ: 0.0 and -0.0
        if number is None or math.copysign(1.0, number.value) != math.copysign(1.0, value):
            tensor = torch.full((), value, dtype=self._compute, device=self._context.device.torch)
            number = self._numbers[value] = Number(float(value), tensor)
        return number

    def _store(self, first: int, count: int) -> int:
        written = 0
        pending = []
        for store, area in zip(self._pass.stores, self._layout.stores, strict=True):
            value = self._block(store.value, count)
            if isinstance(store, ToBuffer):
                self._context.buffers[store.buffer][first : first + count].copy_(value)
                continue
            assert area is not None
            rounded = self._arena.typed(area, torch_dtype(store.dtype))[:count]
            rounded.copy_(value)
            if self._context.device.accelerator:
                stored = self._arena.host_tensor(area)[: rounded.numel() * rounded.element_size()]
                stored.copy_(rounded.view(torch.uint8), non_blocking=True)
            pending.append((store, rounded, self._arena.host(area)))
        if pending:
            self._stream.synchronize()
        for store, rounded, data in pending:
            size = rounded.element_size()
            self._count(store, rounded)
            self._context.writes.write(store.file, store.start + first * size, data[: count * size])
            written += count * size
        return written

    def _count(self, store: ToFile, rounded: torch.Tensor) -> None:
        """Counts what isn't finite. A sum tells quickly that there is nothing, as a rule."""
        size = rounded.element_size()
        if size > 1:
            total = torch.sum(rounded, dtype=torch.float32 if size < 4 else None)
            if math.isfinite(float(total)):
                return
        found = 0
        for start in range(0, rounded.numel(), CHUNK):
            part = rounded[start : start + CHUNK]
            finite = torch.isfinite(part if size > 1 else part.to(torch.float32))
            found += part.numel() - int(torch.count_nonzero(finite))
        if found:
            # a store may be a part of its tensor: the last one that begins no later
            index = bisect.bisect_right(
                self._context.tensors, (store.file, store.start), key=lambda t: (t.file, t.start)
            )
            self._context.tally.found(self._context.tensors[index - 1].name, found)
