"""A disk that is watched: what lies on it at any instant, and what would lie there after the power
failed."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

PAGE = 512
"""Bytes that a disk writes at once."""


class Disk:
    """Every call that changes something below `root` is an instant, numbered from 0; before it, at
    the instants in `stops`, the folder is copied: to `killed/N` as it is, which is what a killed
    process leaves, and to `dark/N` as a loss of power may leave it. Of a file, only what was there
    when it was last synced is sure: any page written since may be there or not, and a file that was
    never synced may be there with its size, its pages, or not at all. `renames` are the instants of
    renames, `seen` what `look` has given at each of the stops.
    """

    def __init__(
        self, root: Path, copies: Path, stops: Collection[int], seed: int = 0, look: Callable[[], int] = lambda: 0
    ) -> None:
        self.root, self.copies, self.stops = root, copies, frozenset(stops)
        self.instants = 0
        self.renames: list[int] = []
        self.seen: dict[int, int] = {}
        self._look = look
        self._lock = threading.RLock()
        self._random = random.Random(seed)
        self._synced = {self._id(p): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Takes part in every call from now on."""
        for name in ("pwrite", "rename", "replace", "link", "unlink", "mkdir", "ftruncate", "copy_file_range", "rmdir"):
            patch.setattr(os, name, self._watched(getattr(os, name)))
        patch.setattr(os, "fsync", self._sync)

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **more: Any) -> Any:
            with self._lock:
                if call.__name__ == "rename":
                    self.renames.append(self.instants)
                self.tick()
                return call(*args, **more)

        return watched

    def _sync(self, descriptor: int) -> None:
        with self._lock:
            self.tick()
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_file():
                self._synced[self._id(path)] = path.read_bytes()

    def tick(self) -> None:
        with self._lock:
            now, self.instants = self.instants, self.instants + 1
            if now in self.stops:
                self.stops -= {now}
                self.seen[now] = self._look()
                killed, dark = self.copies / "killed" / str(now), self.copies / "dark" / str(now)
                # what copying does to files are no instants of the run
                stops, self.stops = self.stops, frozenset()
                shutil.copytree(self.root, killed)
                shutil.copytree(self.root, dark)
                # of what was copied: making a file is no instant, so another thread may have made
                # one since
                for copy in sorted(dark.rglob("*")):
                    if copy.is_file():
                        self._darken(self.root / copy.relative_to(dark), copy)
                self.stops, self.instants = stops, now + 1

    def _darken(self, path: Path, copy: Path) -> None:
        now, status = path.read_bytes(), path.stat()
        synced = self._synced.get(self._id(path))
        if synced is None:
            if self._random.random() < 0.3:
                copy.unlink()
                return
            synced = bytes(len(now))
        size = self._random.choice((len(now), len(synced)))
        pages = [self._random.choice((now, synced))[at : at + PAGE].ljust(PAGE, b"\0") for at in range(0, size, PAGE)]
        copy.write_bytes(b"".join(pages)[:size])
        if now == synced:
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))

    @staticmethod
    def _id(path: Path) -> tuple[int, int]:
        status = path.stat()
        return status.st_ino, status.st_dev
