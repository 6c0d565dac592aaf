"""Counts infinities and NaNs in ranges of the inputs, a piece at a time. Loads numpy when first needed."""

from __future__ import annotations

import importlib
from typing import Any, cast

from ..compiler.plan import Extent
from .ports import Reads

PIECE = 1 << 20
"""Bytes looked at at a time."""


def count_in(extent: Extent, dtype: str, reads: Reads) -> int:
    """How many elements of `dtype` in a range of an input are not finite."""
    count = cast(Any, importlib.import_module(".nonfinite", __package__)).count_nonfinite
    buffer, found = memoryview(bytearray(min(PIECE, extent.nbytes))), 0
    for offset in range(0, extent.nbytes, PIECE):
        part = buffer[: extent.nbytes - offset]
        reads.read_into(extent.file, extent.start + offset, part)
        found += count(part, dtype)
    return found
