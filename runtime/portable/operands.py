"""Operands of a pass: stored bytes through staging, masks held as bits, products of two matrices;
into registers."""

from __future__ import annotations

import numpy
import torch

from ...compiler.checkpoint.dtypes import SIZES
from ...compiler.plan.plan import PRODUCT_ROWS, Gather, Held, Pass, Product, Stream
from ...compiler.plan.scratch import Area, ScratchLayout
from ..machine.accelerator import DeviceStream, TorchArena, torch_dtype
from ..machine.host import HostBuffer
from ..machine.memory import Buffer
from ..stream.interfaces import Reads
from ..stream.ranges import GatherParts, file_ranges
from .values import BlockValue


class Operands:
    """The operands of one pass in one lane."""

    def __init__(
        self,
        reads: Reads,
        pass_: Pass,
        layout: ScratchLayout,
        arena: TorchArena,
        queue: DeviceStream,
        compute: torch.dtype,
        device: torch.device,
    ) -> None:
        self._reads, self._pass, self._layout = reads, pass_, layout
        self._arena, self._queue, self._compute, self._device = arena, queue, compute, device
        self._parts = {k: GatherParts(o) for k, o in enumerate(pass_.operands) if isinstance(o, Gather)}

    def load(self, index: int, first: int, count: int, out: torch.Tensor) -> int:
        """Elements `[first, first + count)` of operand `index` into `out`; returns the bytes
        read."""
        operand, area = self._pass.operands[index], self._layout.operands[index]
        assert area is not None
        match operand:
            case Stream():
                return self._stream(operand, first, count, area, out)
            case Gather():
                return self._gather(operand, self._parts[index], first, count, area, out)
            case Held() | Product():
                raise RuntimeError("what is held needs no reading")

    def _stream(self, stream: Stream, first: int, count: int, area: Area, out: torch.Tensor) -> int:
        if torch_dtype(stream.dtype) == out.dtype and not self._arena.accelerator:
            return self._read(stream, first, count, out.view(torch.uint8).numpy().data)
        part = Area(area.start, count * SIZES[stream.dtype])
        self._read(stream, first, count, self._arena.host(part))
        out.copy_(self._staged(part, stream.dtype))
        return part.nbytes

    def _gather(self, gather: Gather, parts: GatherParts, first: int, count: int, area: Area, out: torch.Tensor) -> int:
        """Every part has staging of its own, at its place in the block; the rows of a mean take
        turns in it."""
        read = 0
        number = out.element_size()
        width = max((SIZES[s.dtype] for s in gather.sources), default=0)
        width = max(width, number) if parts.means else width
        for part in parts.of(first, count):
            to = out[part.first : part.first + part.count]
            if not part.terms:
                to.zero_()
            for turn, (index, element) in enumerate(part.terms):
                if turn:
                    self._queue.synchronize()
                source = gather.sources[index]
                staged = Area(area.start + part.first * width, part.count * SIZES[source.dtype])
                read += self._read(source, element, part.count, self._arena.host(staged))
                if not turn:
                    to.copy_(self._staged(staged, source.dtype))
                    continue
                start = area.start + self._pass.block * width + part.first * number
                term = self._arena.typed(Area(start, part.count * number), self._compute)
                to.add_(term.copy_(self._staged(staged, source.dtype)))
            if len(part.terms) > 1:
                to.div_(torch.full((), len(part.terms), dtype=self._compute, device=self._device))
        return read

    def _read(self, stream: Stream, first: int, count: int, into: memoryview) -> int:
        at = 0
        for file, start, nbytes in file_ranges(stream, first, count):
            self._reads.read_into(file, start, into[at : at + nbytes])
            at += nbytes
        return at

    def _staged(self, area: Area, dtype: str) -> torch.Tensor:
        """What was read into `area`, on the device, as elements of `dtype`."""
        if self._arena.accelerator:
            self._arena.area(area).copy_(self._arena.host_tensor(area), non_blocking=True)
        return self._arena.typed(area, torch_dtype(dtype))


def load_bits(buffer: Buffer, block: BlockValue, out: torch.Tensor) -> None:
    """The block's elements of a mask that is held as bits, eight elements per byte, the first in
    the lowest bit, into `out`, booleans; it begins with a whole byte."""
    assert isinstance(buffer, HostBuffer)
    bits = buffer.bytes[block.first // 8 :]
    out.numpy()[:] = numpy.unpackbits(bits, count=block.count, bitorder="little").view(bool)


def store_bits(buffer: Buffer, first: int, mask: torch.Tensor) -> None:
    """Booleans to such bits of elements from `first` on, which begin with a whole byte."""
    assert isinstance(buffer, HostBuffer)
    packed = numpy.packbits(mask.numpy(), bitorder="little")
    buffer.bytes[first // 8 : first // 8 + len(packed)] = packed


def product_rows(
    product: Product,
    left: torch.Tensor,
    right: torch.Tensor,
    first: int,
    out: torch.Tensor,
    shared: torch.Tensor | None,
) -> None:
    """Elements from `first` on, whole rows, into `out`; `left` and `right` are the held buffers, in
    its dtype.

    The result must not depend on the block. On the CPU terms are added one after the other, in
    `shared` scratch: what order a library adds in depends on the processor, the number of threads
    and where `out` lies in memory. Accelerators, which have no such scratch, take as many rows at
    once, counted from the first of the tensor, as their order may depend on that.
    """
    left = _part(left, product.left).view(-1, product.inner)
    right = _part(right, product.right).view(product.inner, -1)
    if product.turned:
        left, right = right.T, left.T
    rows, begin = out.view(-1, product.width), first // product.width
    for start in range(0, len(rows), PRODUCT_ROWS):
        stop = min(start + PRODUCT_ROWS, len(rows))
        if shared is not None:
            _add_terms(left[begin + start : begin + stop], right, rows[start:stop], shared)
        else:
            torch.mm(left[begin + start : begin + stop], right, out=rows[start:stop])


def _add_terms(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, shared: torch.Tensor) -> None:
    term = shared[: out.numel() * out.element_size()].view(out.dtype).view(out.shape)
    out.zero_()
    for k in range(len(right)):
        out.add_(torch.mul(left[:, k : k + 1], right[k], out=term))


def _part(buffer: torch.Tensor, held: Held) -> torch.Tensor:
    return buffer[held.first : held.first + held.numel]
