"""Devices through torch: accelerators with their memory and queues, and torch's view of the host's
memory."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import numpy
import torch
from numpy.typing import NDArray

from ...compiler.checkpoint.dtypes import SIZES, TORCH_NAMES
from ...compiler.plan.scratch import ALIGNMENT, PAGE, Area
from ...grammar.diagnostic import error
from ...grammar.error_codes import Exit
from .host import HostArena, HostBuffer
from .memory import Buffer


def torch_dtype(name: str) -> torch.dtype:
    """torch's dtype for a safetensors dtype's name."""
    dtype = getattr(torch, TORCH_NAMES[name])
    assert isinstance(dtype, torch.dtype)
    return dtype


def over(data: NDArray[numpy.uint8]) -> torch.Tensor:
    """The bytes as a tensor over the same memory."""
    # torch warns of arrays without elements
    return torch.from_numpy(data) if data.size else torch.empty(0, dtype=torch.uint8)


class Accelerator:
    """A torch device that has memory of its own, by its name in a plan: `cuda:0`, `mps`.

    Raises MergecError (E0613) where torch can't use it.
    """

    accelerator = True

    def __init__(self, name: str) -> None:
        self.torch = torch.device(name)
        self.name = str(self.torch)
        if (lacking := _lacking(self.torch)) is not None:
            help = ("`--device cpu`",)
            raise error("E0613", f"no device `{name}`: {lacking}", help=help, exit=Exit.RUN)

    def arena(self, nbytes: int, staging: int) -> DeviceArena:
        """One lane's memory: `nbytes` on the device, `staging` on the host."""
        return DeviceArena(self.torch, nbytes, staging)

    def buffer(self, dtype: str, numel: int) -> DeviceBuffer:
        """Uninitialised numbers on the device."""
        return DeviceBuffer(self.torch, dtype, numel)

    def free(self) -> int | None:
        """Bytes of its memory that are free now; None where the system doesn't say."""
        return torch.cuda.mem_get_info(self.torch)[0] if self.torch.type == "cuda" else None


def _lacking(device: torch.device) -> str | None:
    """Why torch can't use a device, if so."""
    if device.type == "cuda":
        if not torch.cuda.is_available():
            built = torch.version.cuda is not None or torch.version.hip is not None
            return "torch finds no driver or no GPU" if built else "this torch is built without CUDA"
        count = torch.cuda.device_count()
        return f"there are {count}, from `cuda:0` on" if (device.index or 0) >= count else None
    if device.type == "mps" and not torch.backends.mps.is_available():
        return "torch can't use it here"
    return None


class DeviceArena:
    """One lane's memory on a device, and on the host the staging through which bytes come and
    go."""

    def __init__(self, device: torch.device, nbytes: int, staging: int) -> None:
        # an allocator may align less than ALIGNMENT promises, so there is room to begin later
        self.nbytes, self.staging = nbytes, staging
        self.bytes = _aligned(torch.empty(nbytes + ALIGNMENT, dtype=torch.uint8, device=device), ALIGNMENT)[:nbytes]
        # pinned where the device's copies gain by it
        host = torch.empty(staging + PAGE, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self.host_bytes = _aligned(host, PAGE)[:staging]


class DeviceBuffer:
    """A held buffer on a device: `numel` elements of `dtype`."""

    def __init__(self, device: torch.device, dtype: str, numel: int) -> None:
        self.dtype, self.nbytes = dtype, numel * SIZES[dtype]
        self.tensor = torch.empty(numel, dtype=torch_dtype(dtype), device=device)


def numbers_of(buffer: Buffer) -> torch.Tensor:
    """A held buffer's numbers, over the same memory."""
    if isinstance(buffer, DeviceBuffer):
        return buffer.tensor
    assert isinstance(buffer, HostBuffer)
    return over(buffer.bytes).view(torch_dtype(buffer.dtype))


class DeviceStream:
    """A lane's queue of work on a device. Only CUDA has them; elsewhere all lanes share the
    device's one queue."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def current(self) -> AbstractContextManager[object]:
        """Within it, this thread's work goes to the queue."""
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def synchronize(self) -> None:
        """Returns when the queue is empty."""
        if self._stream is not None:
            self._stream.synchronize()
        elif self._device.type == "mps":
            torch.mps.synchronize()


class TorchArena:
    """A lane's memory as torch sees it. On the CPU the staging is the beginning of the arena
    itself."""

    def __init__(self, arena: HostArena | DeviceArena) -> None:
        self.accelerator = isinstance(arena, DeviceArena)
        self._device = arena.bytes if isinstance(arena, DeviceArena) else over(arena.bytes)
        self._host = arena.host_bytes if isinstance(arena, DeviceArena) else self._device
        self._bytes = self._host.numpy().data

    def area(self, area: Area) -> torch.Tensor:
        """The bytes of `area` on the device."""
        return self._device[area.start : area.start + area.nbytes]

    def typed(self, area: Area, dtype: torch.dtype) -> torch.Tensor:
        """The bytes of `area` on the device, as elements of `dtype`."""
        return self.area(area).view(dtype)

    def host(self, area: Area) -> memoryview:
        """The bytes of `area` on the host; on the CPU the same memory as on the device."""
        return self._bytes[area.start : area.start + area.nbytes]

    def host_tensor(self, area: Area) -> torch.Tensor:
        """As `host`, as a tensor of bytes."""
        return self._host[area.start : area.start + area.nbytes]


def _aligned(bytes_: torch.Tensor, unit: int) -> torch.Tensor:
    return bytes_[-bytes_.data_ptr() % unit :]
