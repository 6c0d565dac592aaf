"""Devices: where numbers are computed, and the scratch that a lane has there."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from ..compiler.dtypes import TORCH_NAMES
from ..compiler.plan import ALIGNMENT, Area


def torch_dtype(name: str) -> torch.dtype:
    """torch's dtype for a safetensors dtype's name."""
    dtype = getattr(torch, TORCH_NAMES[name])
    assert isinstance(dtype, torch.dtype)
    return dtype


class Device:
    """A torch device by its name in a plan: `cpu`, `cuda:0`, `mps`.

    `accelerator` says that its memory isn't the host's.
    """

    def __init__(self, name: str) -> None:
        self.torch = torch.device(name)
        self.accelerator = self.torch.type != "cpu"
        self._cuda = self.torch.type == "cuda"

    def empty(self, nbytes: int) -> torch.Tensor:
        """Uninitialised bytes on the device, aligned to `ALIGNMENT`."""
        return torch.empty(nbytes, dtype=torch.uint8, device=self.torch)

    def empty_host(self, nbytes: int) -> torch.Tensor:
        """Uninitialised bytes on the host, pinned where the device's copies gain by it."""
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=self._cuda)

    def stream(self) -> Stream:
        """A new queue of work, for one lane."""
        return Stream(self.torch)


class Stream:
    """A lane's queue of work on a device. Only CUDA has them; elsewhere all lanes share the device's one queue."""

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


class Arena:
    """One lane's memory, kept and carved anew for every pass: `staging` bytes on the host, `nbytes` on the device.

    On the CPU the staging is the beginning of the arena itself.
    """

    def __init__(self, device: Device, nbytes: int, staging: int) -> None:
        # an allocator may align less than ALIGNMENT promises, so there is room to begin later
        self.nbytes, self.staging = nbytes, staging if device.accelerator else 0
        self._device = _aligned(device.empty(nbytes + ALIGNMENT))[:nbytes]
        self._host = _aligned(device.empty_host(staging + ALIGNMENT))[:staging] if device.accelerator else self._device
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


def _aligned(bytes_: torch.Tensor) -> torch.Tensor:
    return bytes_[-bytes_.data_ptr() % ALIGNMENT :]
