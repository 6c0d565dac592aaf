"""The library of compiled kernels, which lies next to this file, and what it offers checksums.
Needs no numpy: a run that only copies does not load it."""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path

from ...grammar.records import dataclass


@dataclass(frozen=True, slots=True)
class Sums:
    """Checksums as `resume/checksums.py` has them. Every call releases the GIL.

    - `one(address, words, first word)` of a part of a tensor
    - `several(address, tensors, starts, sizes, sums)` of whole tensors; addresses all but the
      second
    """

    one: Callable[[int, int, int], int]
    several: Callable[..., None]


@cache
def opened() -> ctypes.CDLL | None:
    """The library; None where the package was built without a C compiler."""
    path = Path(__file__).with_name("_kernels" + (sysconfig.get_config_var("EXT_SUFFIX") or ".so"))
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


@cache
def sums() -> Sums | None:
    """The compiled checksums, or None where there are none for this system."""
    library = opened()
    try:
        if library is None or sys.byteorder != "little":
            return None
        one, several = library.mergec_checksum, library.mergec_checksums
    except AttributeError:
        return None  # left over from an earlier version
    one.argtypes, one.restype = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64], ctypes.c_uint64
    several.argtypes, several.restype = [ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 3], None
    return Sums(one, several)
