"""Run a command and measure it: wall clock, CPU time, peak resident memory, peak of what it holds.
Linux only."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.01
"""Seconds between samples of the memory of processes that are known."""

SAMPLES_A_LOOK = 10
"""Samples from one look for new processes to the next."""

FIELDS = ("VmHWM", "VmRSS", "RssAnon", "RssShmem")
"""Lines of /proc/PID/status that are looked at, in its order; in kB of 1024 bytes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run took. Times in seconds, memory in bytes.

    `resident` counts mapped file pages, `held` does not: heap, stacks and buffers, whether private
    (`RssAnon`) or mapped so that they could be shared (`RssShmem`). That is what a machine runs out
    of. Both are peaks over time of the sum over the process tree, sampled, except that `resident`
    is at least the kernel's own high-water mark of the largest process, as it was at a sample near
    the end. (`ru_maxrss` won't do: it starts at the parent's size.) `sync` is how long the disk
    still had to write when the process had ended.
    """

    wall: float
    sync: float
    cpu: float
    resident: int
    held: int
    output: int


class CommandFailed(Exception):
    """A measured command did not exit with status 0; `log` has what it printed."""

    def __init__(self, command: Sequence[str], status: int, log: Path) -> None:
        tail = log.read_text(errors="replace")[-2000:]
        super().__init__(f"`{' '.join(command)}` exited with status {status}:\n{tail}")


def measure(
    command: Sequence[str], *, cwd: Path, log: Path, output: Path | None = None, env: Mapping[str, str] | None = None
) -> Sample:
    """Run `command` in `cwd`, its output going to `log`. `output` is the folder or file whose size
    is taken afterwards.

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
        held=watch.held,
        output=size(output) if output else 0,
    )


def size(path: Path) -> int:
    """Bytes in a file, or in all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


class _Watch:
    """Samples a process tree in a thread until stopped.

    Its own work slows the run down where every core is in use, so it keeps files of /proc open, and
    looks for new processes only now and then.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._open: dict[int, int] = {}
        self.resident = 0
        self.held = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        for pid in list(self._open):
            self._close(pid)

    def _look(self) -> None:
        count = 0
        while not self._done.wait(INTERVAL):
            if count % SAMPLES_A_LOOK == 0:
                self._look_around()
            count += 1
            resident = held = 0
            for pid in list(self._open):
                most, now, private, shared = self._memory(pid)
                resident += now
                held += private + shared
                self.resident = max(self.resident, most)
            self.resident = max(self.resident, resident)
            self.held = max(self.held, held)

    def _look_around(self) -> None:
        """Opens what new processes there are."""
        for pid in _tree(self._pid):
            if pid not in self._open:
                with suppress(OSError):  # it has just ended
                    self._open[pid] = os.open(f"/proc/{pid}/status", os.O_RDONLY)

    def _memory(self, pid: int) -> list[int]:
        """FIELDS of a process, in bytes; zeros after its end."""
        try:
            lines = os.pread(self._open[pid], 4096, 0).decode().splitlines()
        except OSError:
            lines = []
        found = [1024 * int(line.split()[1]) for line in lines if line.startswith(FIELDS)]
        if len(found) < len(FIELDS):
            self._close(pid)
            return [0] * len(FIELDS)
        return found

    def _close(self, pid: int) -> None:
        os.close(self._open.pop(pid))


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
