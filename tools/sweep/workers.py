"""A process for each pair, so that none of a thousand models disturbs the next: with limits on its
memory and time, several at once."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

Task = TypeVar("Task")
Answer = TypeVar("Answer")

MEMORY = 12 << 30
"""Bytes of address space a process may take."""


@dataclass
class _Child:
    pid: int
    reader: int
    until: float
    data: bytearray = field(default_factory=bytearray)


def each_apart(
    work: Callable[[Task], Answer], tasks: Iterable[Task], jobs: int, seconds: float
) -> Iterator[tuple[Task, Answer | str]]:
    """Runs `work` on each task in a forked process of its own, `jobs` at a time. Yields the tasks
    as they end, with the answer or with what befell the process."""
    waiting = iter(tasks)
    running: dict[int, tuple[Task, _Child]] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                while len(running) < jobs and (task := next(waiting, None)) is not None:
                    child = _start(work, task, seconds)
                    running[child.reader] = task, child
                    selector.register(child.reader, selectors.EVENT_READ)
                if not running:
                    return
                for key, _ in selector.select(timeout=1):
                    piece = os.read(key.fd, 1 << 20)
                    running[key.fd][1].data += piece
                    if not piece:
                        selector.unregister(key.fd)
                        task, child = running.pop(key.fd)
                        yield task, _answer(child, seconds)
                for _, child in running.values():
                    if time.monotonic() > child.until:
                        os.killpg(child.pid, signal.SIGKILL)
        finally:
            for _, child in running.values():
                os.killpg(child.pid, signal.SIGKILL)


def _start(work: Callable[[Task], Answer], task: Task, seconds: float) -> _Child:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 1))
            _answer_in(work, task, writer)
        finally:
            os._exit(1)
    os.close(writer)
    # here too, for where it is to be killed before it has come to it
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    return _Child(pid, reader, time.monotonic() + seconds)


def _answer_in(work: Callable[[Task], Answer], task: Task, writer: int) -> None:
    """In the child: its own group, so that what it starts ends with it; silent; limited."""
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    try:
        data = pickle.dumps(work(task))
    except BaseException as error:
        data = pickle.dumps(f"{type(error).__name__}: {str(error)[:200]}")
    with os.fdopen(writer, "wb") as stream:
        stream.write(data)
    os._exit(0)


def _answer(child: _Child, seconds: float) -> Any:
    os.close(child.reader)
    _, status = os.waitpid(child.pid, 0)
    if child.data and status == 0:
        return pickle.loads(bytes(child.data))
    if time.monotonic() > child.until:
        return f"no answer in {seconds:.0f} s"
    return f"the process ended with {os.waitstatus_to_exitcode(status)}"
