"""Progress while a plan runs: a line that rewrites itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import TextIO

from ...compiler.plan.plan import Plan
from ...grammar.render import escape
from .amounts import memory, seconds, size

REDRAW = 0.1
"""Seconds between updates of the line on a terminal."""

PLAIN = 10.0
"""Seconds between plain lines where there is no terminal."""


class ProgressLine:
    """Shows bytes, tensors, rate, time left and live memory. Called from several threads; a call
    costs a few microseconds."""

    def __init__(self, plan: Plan, stream: TextIO | None = None) -> None:
        self._plan, self._stream = plan, stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._began = time.monotonic()
        self._shown = self._began
        self._moved = self._tensor = self._host = self._device = 0
        self._total = max(1, plan.reads + plan.writes)
        self._lock = threading.Lock()

    def begins(self, plan: Plan, notices: Sequence[str]) -> None:
        self._began = self._shown = time.monotonic()
        self._total = max(1, plan.reads + plan.writes)
        for notice in notices:
            self._write(f"mergec: {escape(notice)}\n")

    def tensor(self, index: int) -> None:
        self._tensor = max(self._tensor, index)

    def live(self, host: int, device: int) -> None:
        self._host, self._device = host, device

    def moved(self, read: int, written: int) -> None:
        with self._lock:
            self._moved += read + written
            now = time.monotonic()
            if now - self._shown < (REDRAW if self._terminal else PLAIN):
                return
            self._shown = now
            self._show(now)

    def close(self) -> None:
        """Takes the line off a terminal."""
        if self._terminal:
            self._write("\r\x1b[K")

    def _show(self, now: float) -> None:
        share = min(1.0, self._moved / self._total)
        rate = self._moved / max(1e-9, now - self._began)
        left = (self._total - self._moved) / rate if rate and share < 1 else 0.0
        tensors = self._plan.tensors
        name = tensors[self._tensor].name if tensors else ""
        text = (
            f"{share:4.0%}  {size(self._moved)} of {size(self._total)}  {size(rate)}/s  {seconds(left)} left  "
            f"tensor {self._tensor + 1}/{len(tensors)}  {memory(self._host)}"
        )
        if self._device:
            text += f" + {memory(self._device)} on the device"
        if self._terminal:
            self._write("\r\x1b[K" + f"{text}  {ascii(name)[1:-1][-40:]}"[: self._columns() - 1])
        else:
            self._write(text + "\n")

    def _columns(self) -> int:
        """The width of the terminal now: a longer line would wrap, and could not be taken back."""
        try:
            return max(2, os.get_terminal_size(self._stream.fileno()).columns or 80)
        except (OSError, ValueError):
            return 80

    def _write(self, text: str) -> None:
        """Nobody reading it is no reason to stop the merge."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass
