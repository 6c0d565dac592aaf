"""The portable backend: torch's kernels, for every device and every operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...compiler.checkpoint.dtypes import BITS
from ...compiler.ops.table import SCALARS
from ...compiler.plan.plan import (
    CHUNK,
    Argument,
    Constant,
    Held,
    Instruction,
    Load,
    Mask,
    Opaque,
    Pass,
    Product,
    Register,
    Scalar,
    ToBuffer,
)
from ...compiler.plan.scratch import LOAD_STAGING, Area, ScratchLayout
from ..machine.accelerator import DeviceArena, DeviceStream, TorchArena, numbers_of, torch_dtype
from ..machine.host import HostArena
from ..reduce.reducer import Attributes, Reducer, Threshold
from ..reduce.reducers import REDUCERS
from ..stream.passes import Context
from ..stream.ranges import file_ranges
from .elementwise import ELEMENTWISE, ELEMENTWISE_CPU
from .opaque import OPAQUE
from .operands import Operands, load_bits, product_rows, store_bits
from .reduce import FEEDS
from .values import BlockValue, ScalarValue, Value

_Call = Callable[[BlockValue], int]
"""One instruction on one block; returns the bytes that it read from files."""


class Portable:
    """Torch's kernels for one run; `close` gives torch its threads back."""

    samples = False

    def __init__(self, context: Context, device: str) -> None:
        self.device = torch.device(device)
        self.context = context
        self.compute = torch_dtype(context.plan.compute)
        self.streams = [DeviceStream(self.device) for _ in range(context.lanes.count)]
        self._threads = torch.get_num_threads()
        self._share()

    def close(self) -> None:
        torch.set_num_threads(self._threads)

    def reducer(self, op: str, attributes: Attributes, numel: int) -> Reducer:
        return REDUCERS[op](attributes, numel, 8 * self.compute.itemsize)

    def lane(self, pass_: Pass, layout: ScratchLayout, arena: Any, index: int) -> TorchLane:
        return TorchLane(self, pass_, layout, TorchArena(arena), self.streams[index])

    def opaque(self, opaque: Opaque) -> None:
        """Runs an operation on whole tensors."""
        inputs = tuple(
            self._tensor(held, shape) for held, shape in zip(opaque.inputs, opaque.input_shapes, strict=True)
        )
        output = numbers_of(self.context.buffers[opaque.output]).view(opaque.output_shape)
        numbers = tuple(self.context.number(a) for a in opaque.scalars)
        # no lane is busy, and the last bits depend on the number of threads: the same whatever the
        # number of lanes
        torch.set_num_threads(self._threads)
        try:
            with self.streams[0].current():
                OPAQUE[opaque.op](inputs, numbers, output, dict(opaque.attributes))
            self.streams[0].synchronize()
        finally:
            self._share()

    def load(self, load: Load, arena: HostArena | DeviceArena) -> None:
        """Brings a tensor onto an accelerator, through the staging of a lane."""
        context, staging = self.context, TorchArena(arena)
        buffer, at = numbers_of(context.buffers[load.buffer]).view(torch.uint8), 0
        for file, start, nbytes in file_ranges(load.source, 0, load.source.numel):
            for offset in range(0, nbytes, LOAD_STAGING):
                context.lanes.check()
                size = min(LOAD_STAGING, nbytes - offset)
                area = Area(0, size)
                context.reads.read_into(file, start + offset, staging.host(area))
                with self.streams[0].current():
                    buffer[at : at + size].copy_(staging.host_tensor(area), non_blocking=True)
                self.streams[0].synchronize()
                context.tally.moved(size, 0)
                at += size

    def _share(self) -> None:
        """One thread per lane, so that lanes don't get into each other's way."""
        if self.context.lanes.count > 1:
            torch.set_num_threads(1)

    def _tensor(self, held: Held, shape: tuple[int, ...]) -> torch.Tensor:
        tensor: torch.Tensor = numbers_of(self.context.buffers[held.buffer])
        return tensor[held.first : held.first + held.numel].view(shape)


class TorchLane:
    """What one lane needs for one pass: typed views of its arena, numbers on the device."""

    def __init__(
        self, backend: Portable, pass_: Pass, layout: ScratchLayout, arena: TorchArena, stream: DeviceStream
    ) -> None:
        self._context, self._pass, self._layout = backend.context, pass_, layout
        self._arena, self._stream, self._device = arena, stream, backend.device
        self._compute = backend.compute
        self._kernels = ELEMENTWISE if arena.accelerator else ELEMENTWISE_CPU
        self._registers = [arena.typed(a, self._compute) for a in layout.registers]
        self._masks = [arena.typed(a, torch.bool) for a in layout.masks]
        self._states = [arena.area(a) if a is not None else None for a in layout.states]
        self._shared = arena.area(layout.shared)
        self._operands = Operands(self._context.reads, pass_, layout, arena, stream, self._compute, self._device)
        self._numbers: dict[float, ScalarValue] = {}
        self._code: tuple[Instruction, ...] = ()
        self._calls: dict[int, list[_Call]] = {}
        self._active: Sequence[tuple[int, Reducer]] = ()
        self._again = False

    def begin(self, code: tuple[Instruction, ...], active: Sequence[tuple[int, Reducer]], *, again: bool) -> None:
        self._code, self._active, self._again = code, active, again
        self._calls.clear()

    def run(self, first: int, count: int) -> None:
        with self._stream.current():
            self._run(first, count)

    def _run(self, first: int, count: int) -> None:
        block = BlockValue(first, count, self._shared)
        read = 0
        for call in self._bound(count):
            read += call(block)
        for i, reducer in self._active:
            reduction = self._pass.reductions[i]
            args = tuple(self._block(a, count) for a in reduction.args if isinstance(a, Register | Mask))
            FEEDS[reduction.op](reducer, block, args, self._states[i])
        written = 0 if self._again else self._store(first, count)
        # after this, the lane's staging may be used again
        self._stream.synchronize()
        self._context.tally.moved(read, written, again=self._again)

    def _bound(self, count: int) -> list[_Call]:
        """The code on blocks of `count` elements: looked up once, as all blocks but the last have
        the same size."""
        if count not in self._calls:
            self._calls[count] = [self._bind(instruction, count) for instruction in self._code]
        return self._calls[count]

    def _bind(self, instruction: Instruction, count: int) -> _Call:
        out, attributes = self._block(instruction.out, count), dict(instruction.attributes)
        if instruction.op == "load":
            index = int(attributes["operand"])
            return lambda block: self._load(index, block, out)
        args = tuple(self._value(a, count) for a in instruction.args)
        numbers = [a.value for a in args if isinstance(a, ScalarValue)]
        kernel = self._kernels[instruction.op]

        def fill(_: BlockValue) -> int:
            out.fill_(SCALARS[instruction.op](*numbers))
            return 0

        def call(block: BlockValue) -> int:
            kernel(block, out, args, attributes)
            return 0

        return fill if len(numbers) == len(args) and instruction.op in SCALARS else call

    def _load(self, index: int, block: BlockValue, out: torch.Tensor) -> int:
        operand = self._pass.operands[index]
        if isinstance(operand, Held):
            if operand.dtype == BITS:
                load_bits(self._context.buffers[operand.buffer], block, out)
                return 0
            start = operand.first + block.first
            out.copy_(numbers_of(self._context.buffers[operand.buffer])[start : start + block.count])
            return 0
        if isinstance(operand, Product):
            left, right = (numbers_of(self._context.buffers[h.buffer]) for h in (operand.left, operand.right))
            product_rows(operand, left, right, block.first, out, None if self._arena.accelerator else block.shared)
            return 0
        return self._operands.load(index, block.first, block.count, out)

    def _block(self, place: Register | Mask, count: int) -> torch.Tensor:
        tensor = self._registers[place.index] if isinstance(place, Register) else self._masks[place.index]
        return tensor if count == self._pass.block else tensor[:count]

    def _value(self, argument: Argument, count: int) -> Value:
        match argument:
            case Register() | Mask():
                return self._block(argument, count)
            case Scalar(index):
                value = self._context.scalars[index]
                return value if isinstance(value, Threshold) else self._number(self._context.number(argument))
            case Constant(value):
                return self._number(value)

    def _number(self, value: float) -> ScalarValue:
        number = self._numbers.get(value)
        # equal numbers may differ: 0.0 and -0.0
        if number is None or math.copysign(1.0, number.value) != math.copysign(1.0, value):
            # by way of float64, as torch refuses what overflows where rounding gives an infinity
            tensor = torch.tensor(value, dtype=torch.float64).to(self._compute).to(self._device)
            number = self._numbers[value] = ScalarValue(float(value), tensor)
        return number

    def _store(self, first: int, count: int) -> int:
        written = 0
        pending = []
        for store, area in zip(self._pass.stores, self._layout.stores, strict=True):
            value = self._block(store.value, count)
            if isinstance(store, ToBuffer):
                if isinstance(store.value, Mask):
                    store_bits(self._context.buffers[store.buffer], first, value)
                    continue
                numbers_of(self._context.buffers[store.buffer])[first : first + count].copy_(value)
                continue
            assert area is not None
            rounded = self._arena.typed(area, torch_dtype(store.dtype))[:count]
            rounded.copy_(value)
            if self._arena.accelerator:
                stored = self._arena.host_tensor(area)[: rounded.numel() * rounded.element_size()]
                stored.copy_(rounded.view(torch.uint8), non_blocking=True)
            pending.append((store, rounded, self._arena.host(area)))
        if pending:
            self._stream.synchronize()
        for store, rounded, data in pending:
            size = rounded.element_size()
            self._context.not_finite(store, _not_finite(rounded))
            self._context.writes.write(store.file, store.start + first * size, data[: count * size])
            written += count * size
        return written


def _not_finite(rounded: torch.Tensor) -> int:
    """How many infinities and NaNs there are. A sum usually shows quickly that there is none."""
    size = rounded.element_size()
    if size > 1:
        total = torch.sum(rounded, dtype=torch.float32 if size < 4 else None)
        if math.isfinite(float(total)):
            return 0
    found = 0
    for start in range(0, rounded.numel(), CHUNK):
        part = rounded[start : start + CHUNK]
        finite = torch.isfinite(part if size > 1 else part.to(torch.float32))
        found += part.numel() - int(torch.count_nonzero(finite))
    return found
