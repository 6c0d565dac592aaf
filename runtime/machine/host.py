"""Memory of the host, without torch: for the lanes and held buffers of a merge on the CPU."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from ...compiler.checkpoint.dtypes import held_bytes
from ...compiler.plan.scratch import Area
from ..files.syscalls import anonymous


class Host:
    """The CPU as a device: its memory is the host's."""

    accelerator = False
    name = "cpu"

    def arena(self, nbytes: int, staging: int) -> HostArena:
        """One lane's memory; the staging is the beginning of it."""
        del staging
        return HostArena(nbytes)

    def buffer(self, dtype: str, numel: int) -> HostBuffer:
        """Uninitialised numbers."""
        return HostBuffer(dtype, numel)

    def free(self) -> None:
        """Not known: the system lends more than it has."""
        return None


def pages(nbytes: int) -> NDArray[numpy.uint8]:
    """Bytes that begin a page, straight from the system, so that they go back to it when they are
    dropped.

    Raises MemoryError.
    """
    return numpy.frombuffer(anonymous(nbytes), numpy.uint8)[:nbytes]


class HostArena:
    """One lane's memory, kept and carved anew for every pass."""

    staging = 0

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.bytes = pages(nbytes)
        self.address: int = self.bytes.ctypes.data
        self._data = self.bytes.data

    def host(self, area: Area) -> memoryview:
        """The bytes of `area`."""
        return self._data[area.start : area.start + area.nbytes]


class HostBuffer:
    """A held buffer: `numel` elements of `dtype`, in pages of its own or at the beginning of
    `memory`."""

    def __init__(self, dtype: str, numel: int, memory: NDArray[numpy.uint8] | None = None) -> None:
        self.dtype = dtype
        self.nbytes = held_bytes(dtype, numel)
        self.bytes = pages(self.nbytes) if memory is None else memory[: self.nbytes]
        self.address: int = self.bytes.ctypes.data
