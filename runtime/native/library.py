"""What the library of compiled kernels offers passes, where the package was built with a C
compiler."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import cache

import numpy

from ...grammar.records import dataclass
from ..reduce.selection import FEW
from .loading import opened

STEP = numpy.dtype(
    [
        ("op", "i8"),
        *((name, "u8") for name in ("out", "a", "b", "c")),
        *((name, "f8") for name in ("x", "y")),
        *((name, "u8") for name in ("u", "v", "w")),
    ]
)
"""One instruction as the library takes it: addresses, numbers, words. `body.h` says what each means
to it."""

RANGE = numpy.dtype([("file", "i8"), ("start", "i8"), ("size", "i8"), ("to", "u8")])
"""Bytes of an open file, by its descriptor, and the address that they are read to."""

SEEN = numpy.dtype([("found", "i8"), ("bin", "u4", FEW), ("count", "u4", FEW)])
"""What an instruction remembers of a chunk's digits."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """The compiled kernels. Every call releases the GIL.

    - `instructions` by name
    - `run(steps, number, first, count, piece)` over elements `[first, first + count)` of a tensor
    - `read_and_run(ranges, number of them, steps, …)`: the same after ranges of files (RANGE) have
      been read; which one could not be, so that nothing was run, or their number
    - `run_each(steps, number, tensors, count, piece)` over whole tensors of `count` elements, whose
      steps follow one another
    """

    instructions: Mapping[str, int]
    run: Callable[[int, int, int, int, int], None]
    read_and_run: Callable[[int, int, int, int, int, int, int], int]
    run_each: Callable[[int, int, int, int, int], None]


@cache
def kernels() -> Kernels | None:
    """The compiled kernels, or None where there are none for this system: then torch's are used."""
    library = opened()
    try:
        return _described(library) if library is not None else None
    except AttributeError:
        return None  # left over from an earlier version


def _described(library: ctypes.CDLL) -> Kernels | None:
    """What the library offers; None where its steps have another form. Raises AttributeError for
    what it lacks."""
    library.mergec_size.argtypes, library.mergec_size.restype = [ctypes.c_int64], ctypes.c_int64
    library.mergec_name.argtypes, library.mergec_name.restype = [ctypes.c_int64], ctypes.c_char_p
    library.mergec_run.argtypes, library.mergec_run.restype = [ctypes.c_void_p, *[ctypes.c_int64] * 4], None
    library.mergec_read_and_run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, *[ctypes.c_int64] * 4]
    library.mergec_read_and_run.restype = ctypes.c_int64
    library.mergec_run_each.argtypes, library.mergec_run_each.restype = [ctypes.c_void_p, *[ctypes.c_int64] * 4], None
    if (library.mergec_size(0), library.mergec_size(1)) != (STEP.itemsize, SEEN.itemsize):
        return None  # left over from another version
    instructions: dict[str, int] = {}
    while (name := library.mergec_name(len(instructions))) is not None:
        instructions[name.decode()] = len(instructions)
    return Kernels(
        instructions,
        library.mergec_run,
        library.mergec_read_and_run,
        library.mergec_run_each,
    )
