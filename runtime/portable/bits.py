"""Masks that are held as bits, on the host: eight elements a byte, the first in the lowest bit."""

from __future__ import annotations

import numpy
import torch

from ..machine.host import HostBuffer
from ..machine.memory import Buffer
from .values import Block


def load_bits(buffer: Buffer, block: Block, out: torch.Tensor) -> None:
    """The block's elements into `out`, booleans; it begins with a whole byte."""
    assert isinstance(buffer, HostBuffer)
    bits = buffer.bytes[block.first // 8 :]
    out.numpy()[:] = numpy.unpackbits(bits, count=block.count, bitorder="little").view(bool)


def store_bits(buffer: Buffer, first: int, mask: torch.Tensor) -> None:
    """Booleans to elements from `first` on, which begin with a whole byte."""
    assert isinstance(buffer, HostBuffer)
    packed = numpy.packbits(mask.numpy(), bitorder="little")
    buffer.bytes[first // 8 : first // 8 + len(packed)] = packed
