"""Infinities and NaNs in stored bytes, recognised by their bits: for copies, whose numbers nobody
else looks at."""

from __future__ import annotations

from ...compiler.plan.plan import Extent
from .interfaces import Reads

PIECE = 1 << 20
"""Bytes of an input looked at at a time."""

PATTERNS: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F8_E5M2": ("u1", 0x7C),
    "F8_E4M3": ("u1", 0x7F),
}
"""For each float dtype the integer that holds an element, and the bits that are all set where it is
not finite.

The exponent's, as in IEEE 754; `F8_E4M3` has no infinities, and one NaN: all bits but the sign's.
"""


def count_nonfinite(data: memoryview, dtype: str) -> int:
    """How many of the elements in `data`, whole elements of `dtype`, are infinities or NaNs; 0 for
    integers."""
    # a run that only copies does not load numpy, unless it has to look at what it copies
    import numpy

    if dtype not in PATTERNS:
        return 0
    kind, bits = PATTERNS[dtype]
    elements = numpy.frombuffer(data, kind)
    return int(numpy.count_nonzero(numpy.bitwise_and(elements, elements.dtype.type(bits)) == bits))


def count_in(extent: Extent, dtype: str, reads: Reads) -> int:
    """How many elements of `dtype` in a range of an input are not finite; it is read a piece at a
    time."""
    buffer, found = memoryview(bytearray(min(PIECE, extent.nbytes))), 0
    for offset in range(0, extent.nbytes, PIECE):
        part = buffer[: extent.nbytes - offset]
        reads.read_into(extent.file, extent.start + offset, part)
        found += count_nonfinite(part, dtype)
    return found
