"""Run a command and measure it: wall clock, CPU time, peak resident and peak anonymous memory. Linux only."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.01
"""Seconds between looks at /proc."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run took. Times in seconds, memory in bytes.

    `resident` counts mapped file pages, `anonymous` does not: heap and buffers, which is what a machine runs out of.
    Both are peaks over time of the sum over the process tree, sampled, except that `resident` is at least the
    kernel's own high-water mark of the largest process. (`ru_maxrss` won't do: it starts at the parent's size.)
    `sync` is how long the disk still had to write when the process had ended.
    """

    wall: float
    sync: float
    cpu: float
    resident: int
    anonymous: int
    output: int


class CommandFailed(Exception):
    """A measured command did not exit with status 0; `log` has what it printed."""

    def __init__(self, command: Sequence[str], status: int, log: Path) -> None:
        tail = log.read_text(errors="replace")[-2000:]
        super().__init__(f"`{' '.join(command)}` exited with status {status}:\n{tail}")


def measure(
    command: Sequence[str], *, cwd: Path, log: Path, output: Path | None = None, env: Mapping[str, str] | None = None
) -> Sample:
    """Run `command` in `cwd`, its output going to `log`. `output` is the folder or file whose size is taken afterwards.

    Raises CommandFailed.
    """
    with log.open("wb") as sink:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
        watch = _Watch(process.pid)
        watch.start()
        _, wait_status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        status = process.returncode = os.waitstatus_to_exitcode(wait_status)
        watch.stop()
        start = time.perf_counter()
        os.sync()
        sync = time.perf_counter() - start
    if status != 0:
        raise CommandFailed(command, status, log)
    return Sample(
        wall=wall,
        sync=sync,
        cpu=usage.ru_utime + usage.ru_stime,
        resident=watch.resident,
        anonymous=watch.anonymous,
        output=size(output) if output else 0,
    )


def size(path: Path) -> int:
    """Bytes in a file, or in all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


class _Watch:
    """Samples a process tree in a thread until stopped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.resident = 0
        self.anonymous = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(INTERVAL):
            resident = anonymous = 0
            for pid in _tree(self._pid):
                memory = _memory(pid)
                anonymous += memory.get("RssAnon", 0) + memory.get("RssShmem", 0)
                resident += memory.get("VmRSS", 0)
                self.resident = max(self.resident, memory.get("VmHWM", 0))
            self.resident = max(self.resident, resident)
            self.anonymous = max(self.anonymous, anonymous)


def _tree(pid: int) -> list[int]:
    """The process and all its descendants that are alive."""
    pending, found = [pid], []
    while pending:
        current = pending.pop()
        found.append(current)
        try:
            for task in os.listdir(f"/proc/{current}/task"):
                pending += map(int, Path(f"/proc/{current}/task/{task}/children").read_text().split())
        except OSError:
            continue  # it has just ended
    return found


def _memory(pid: int) -> dict[str, int]:
    """The kernel's memory figures of a process, in bytes; empty where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(amount) * 1024 for name, amount, _ in fields}
