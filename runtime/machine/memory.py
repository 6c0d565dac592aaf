"""Memory: what a run asks of a device, and accounting: every buffer by name, and the most that was
ever live, on the host and on the device."""

from __future__ import annotations

import threading
from typing import Protocol


class Arena(Protocol):
    """One lane's memory: `nbytes` where numbers are computed, and `staging` on the host for an
    accelerator."""

    nbytes: int
    staging: int


class Buffer(Protocol):
    """A held buffer: a whole tensor's numbers in memory."""

    dtype: str
    nbytes: int


class Memory(Protocol):
    """Where a run's arenas and buffers come from: `host.py`, `accelerator.py`."""

    accelerator: bool
    name: str

    def arena(self, nbytes: int, staging: int) -> Arena: ...

    def buffer(self, dtype: str, numel: int) -> Buffer: ...

    def free(self) -> int | None:
        """Bytes of it that are free now; None where that is not known."""
        ...


class Meter:
    """Records each buffer when it is allocated and freed; all figures in bytes.

    Safe to use from several threads. A double allocation, a free of what isn't live and a leak are
    internal errors: RuntimeError.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[str, tuple[int, bool]] = {}
        self._now = [0, 0]
        self._peak = [0, 0]

    @property
    def host(self) -> int:
        """Bytes live on the host now."""
        return self._now[False]

    @property
    def device(self) -> int:
        """Bytes live on the accelerator now."""
        return self._now[True]

    @property
    def peak_host(self) -> int:
        """The most bytes that were live on the host at once."""
        return self._peak[False]

    @property
    def peak_device(self) -> int:
        """The most bytes that were live on the accelerator at once."""
        return self._peak[True]

    def allocate(self, name: str, nbytes: int, *, device: bool = False) -> None:
        """Records a buffer; raises RuntimeError where `name` is live already."""
        with self._lock:
            if name in self._live:
                raise RuntimeError(f"buffer `{name}` is allocated twice")
            self._live[name] = (nbytes, device)
            self._now[device] += nbytes
            self._peak[device] = max(self._peak[device], self._now[device])

    def free(self, name: str) -> None:
        """Records that a buffer is gone; raises RuntimeError where it isn't live."""
        with self._lock:
            if name not in self._live:
                raise RuntimeError(f"buffer `{name}` is freed but not allocated")
            nbytes, device = self._live.pop(name)
            self._now[device] -= nbytes

    def close(self) -> None:
        """Raises RuntimeError where a buffer is still live."""
        if self._live:
            left = ", ".join(f"`{name}` ({nbytes} bytes)" for name, (nbytes, _) in sorted(self._live.items()))
            raise RuntimeError(f"buffers never freed: {left}")
