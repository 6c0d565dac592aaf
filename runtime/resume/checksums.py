"""Checksums of tensors, which can be computed from pieces in any order.

The bytes of a tensor are taken as 64-bit words (little endian, the last one filled up with zeros).
Each word is mixed with its number, and the results are added modulo 2^64. The sum says whether
bytes are the ones that were written: any change of a single word changes it, and any other change
does except with a chance of one in 2^64. It is no protection against somebody who changes bytes on
purpose.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from ..files.syscalls import address
from ..native.loading import sums

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_WEYL = 0x9E3779B97F4A7C15
_MULTIPLIER = 0xD6E8FEB86659FD93
_WORDS = 1 << 13
_MODULUS = 1 << 64


def checksum(data: memoryview, first_byte: int) -> int:
    """The sum over the words of `data`, contiguous bytes that begin at byte `first_byte`, a
    multiple of 8, of a tensor.

    Only the tensor's last bytes may be an incomplete word. For a word w of number i (from 0),
    modulo 2^64:

        x = w + (i + 1) * 0x9E3779B97F4A7C15;  x ^= x >> 32;  x *= 0xD6E8FEB86659FD93;  x ^= x >> 29
    """
    whole, first, total, found = data.nbytes // 8, first_byte // 8, 0, sums()
    if whole:
        total = found.one(address(data), whole, first) if found is not None else _portable(data[: 8 * whole], first)
    if data.nbytes % 8:
        last = bytearray(data[whole * 8 :]).ljust(8, b"\0")
        total += checksum(memoryview(last), first_byte + whole * 8)
    return total % _MODULUS


def checksums(data: memoryview, places: Sequence[tuple[int, int]]) -> list[int]:
    """The checksums of whole tensors, each `size` bytes of `data` from byte `start` on: pairs
    (start, size)."""
    found, number = sums(), len(places)
    if found is None or number == 1:
        return [checksum(data[start : start + size], 0) for start, size in places]
    words = ctypes.c_int64 * number
    starts, sizes = words(*[start for start, _ in places]), words(*[size for _, size in places])
    totals = (ctypes.c_uint64 * number)()
    found.several(address(data), number, ctypes.addressof(starts), ctypes.addressof(sizes), ctypes.addressof(totals))
    return list(totals)


def _portable(data: memoryview, first: int) -> int:
    import numpy

    words = numpy.frombuffer(data, "<u8")
    ramp, size, total = _ramp(), min(_WORDS, len(words)), 0
    mixed, shifted = numpy.empty(size, numpy.uint64), numpy.empty(size, numpy.uint64)
    for start in range(0, len(words), _WORDS):
        count = min(_WORDS, len(words) - start)
        x, y = mixed[:count], shifted[:count]
        numpy.add(ramp[:count], numpy.uint64((first + start) * _WEYL % _MODULUS), out=x)
        numpy.add(x, words[start : start + count], out=x)
        _mix(x, y)
        total += int(x.sum())
    return total


def _mix(x: NDArray[numpy.uint64], y: NDArray[numpy.uint64]) -> None:
    """Mixes the bits of each word in place; `y` is scratch of the same size."""
    import numpy

    numpy.right_shift(x, numpy.uint64(32), out=y)
    numpy.bitwise_xor(x, y, out=x)
    numpy.multiply(x, numpy.uint64(_MULTIPLIER), out=x)
    numpy.right_shift(x, numpy.uint64(29), out=y)
    numpy.bitwise_xor(x, y, out=x)


@cache
def _ramp() -> NDArray[numpy.uint64]:
    import numpy

    return numpy.arange(1, _WORDS + 1, dtype=numpy.uint64) * numpy.uint64(_WEYL)


class Checksum:
    """The checksum of one tensor of `nbytes` bytes, from pieces that come in any order and from any
    thread."""

    __slots__ = ("_edges", "_lock", "_nbytes", "_total")

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._total = 0
        self._edges: dict[int, int] = {}  # words that pieces share: their number, and the bytes that came so far
        self._lock = threading.Lock()

    def add(self, data: memoryview, first_byte: int) -> None:
        """Adds `data`, contiguous bytes that begin at byte `first_byte` of the tensor; each byte
        comes once."""
        end = first_byte + data.nbytes
        begin, stop = -(-first_byte // 8) * 8, end if end == self._nbytes else end // 8 * 8
        if begin >= stop:
            begin = stop = end
        total = checksum(data[begin - first_byte : stop - first_byte], begin) if begin < stop else 0
        with self._lock:
            self._total = (self._total + total) % _MODULUS
            for part, at in ((data[: begin - first_byte], first_byte), (data[stop - first_byte :], stop)):
                for k, byte in enumerate(part):
                    word, place = divmod(at + k, 8)
                    self._edges[word] = self._edges.get(word, 0) | byte << 8 * place

    def value(self) -> str:
        """The checksum, 16 hexadecimal digits; all bytes must have come."""
        with self._lock:
            total = self._total
            for word, bits in self._edges.items():
                total += checksum(memoryview(bits.to_bytes(8, "little")), word * 8)
        return f"{total % _MODULUS:016x}"
