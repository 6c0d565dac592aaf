"""The journal of a run: which tensors of the unfinished output are on disk, so that another run can go on from there.

A line is a checksum of the rest (CRC-32, eight hexadecimal digits), a space, and JSON. The first line says what is
being made (`Head`), each other one that a tensor is complete (`Done`). A line is written after the tensor's bytes are
on disk, never before. Whatever a crash leaves at the end counts only up to the first line that is not whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ...compiler.plan import Plan
from ...grammar.records import dataclass
from ..faults import show
from ..kernel_code import named
from ..syscalls import sync, write_all
from .made_with import changed_code, difference, made_with

_LONGEST = 1 << 28
"""Bytes of a journal that are read at most: about a million tensors."""

_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What the system says where it is short of something, whatever the file is."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a run makes, as far as bytes of tensors depend on it.

    `inputs` are path, size and time of change of every input file; `tensors` is a digest of the output's tensors with
    their keys and places, `files` one of its weight files with their headers. How the work is divided is not in it, nor
    are the papers that go with the weights.
    """

    made_with: Mapping[str, str]
    inputs: tuple[tuple[str, int, int], ...]
    tensors: str
    files: str


@dataclass(frozen=True, slots=True)
class Done:
    """A complete tensor: its index in the plan, the checksum of its bytes, and how many numbers in it are not
    finite."""

    tensor: int
    checksum: str
    non_finite: int = 0


def head_of(plan: Plan) -> Head:
    """What a run of this plan makes."""
    tensors = hashlib.blake2b(digest_size=16)
    for t in plan.tensors:
        tensors.update(f"{t.name!r} {t.key} {t.file} {t.start} {t.nbytes}\n".encode(errors="backslashreplace"))
    if not all(t.key for t in plan.tensors):
        tensors.update(repr(plan.steps).encode(errors="backslashreplace"))
    files = hashlib.blake2b(digest_size=16)
    for f in plan.outputs:
        files.update(f"{f.name!r} {f.size} {f.header!r}\n".encode(errors="backslashreplace"))
    inputs = tuple((i.path, i.size, i.mtime_ns) for i in plan.inputs)
    return Head(made_with(plan), inputs, tensors.hexdigest(), files.hexdigest())


def other(then: Head, plan: Plan) -> str | None:
    """Why what was begun then is not what the plan makes, in a few words; None where it is the same."""
    if (why := difference(then.made_with, plan)) is not None:
        return why
    now = head_of(plan)
    if (then.tensors, then.files) == (now.tensors, now.files):
        return None
    if changed := changed_code(then.made_with, plan.made_by):
        return f"{named(changed[0])} has changed since"
    before = {path: (size, mtime) for path, size, mtime in then.inputs}
    for path, size, mtime in now.inputs:
        if before.get(path, (size, mtime)) != (size, mtime):
            return f"input `{show(path)}` has changed since"
    if set(before) != {path for path, _, _ in now.inputs}:
        return "it has other inputs"
    return "the recipe, its settings or an input have changed since"


class Journal:
    """A journal that lines can be added to. Raises OSError."""

    def __init__(self, path: str, descriptor: int, length: int) -> None:
        self.path, self._descriptor, self._length = path, descriptor, length

    @classmethod
    def create(cls, path: str, head: Head) -> Journal:
        """A new journal, on disk when this returns."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        journal = cls(path, descriptor, 0)
        try:
            journal._append(_line(asdict(head)))
            sync(os.path.dirname(path))
        except BaseException:
            journal.close()
            raise
        return journal

    @classmethod
    def reopen(cls, path: str, length: int) -> Journal:
        """A journal whose first `length` bytes are good (`read`); the rest is cut off."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(descriptor, length)
        return cls(path, descriptor, length)

    def append(self, entries: Iterable[Done]) -> None:
        """Adds entries and sees them onto the disk. What they tell of must be there already."""
        fields = ({"tensor": e.tensor, "checksum": e.checksum, "non_finite": e.non_finite} for e in entries)
        self._append(b"".join(map(_line, fields)))

    def close(self) -> None:
        os.close(self._descriptor)

    def _append(self, data: bytes) -> None:
        write_all(self._descriptor, memoryview(data), self._length)
        os.fsync(self._descriptor)
        self._length += len(data)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal says; the good part is `length` bytes long."""

    head: Head
    entries: tuple[Done, ...]
    length: int


def read(path: str) -> Contents | None:
    """The contents of a journal up to the first line that is not whole; None where there is nothing of use.

    Raises OSError where that can't be told, as too many files are open.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LONGEST)
    except OSError as error:
        if error.errno in _SHORT and os.path.lexists(path):
            raise
        return None
    head: Head | None = None
    entries: list[Done] = []
    length = 0
    for line in data.splitlines(keepends=True):
        value = _parsed(line)
        try:
            if head is None:
                head = _head(value)
            else:
                entries.append(_done(value))
        except (TypeError, ValueError, KeyError):
            break
        length += len(line)
    return Contents(head, tuple(entries), length) if head is not None else None


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


def _parsed(line: bytes) -> Any:
    crc, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or crc != f"{zlib.crc32(text):08x}".encode():
        return None
    return json.loads(text)


def _head(value: Any) -> Head:
    inputs = tuple((str(path), int(size), int(mtime)) for path, size, mtime in value["inputs"])
    made = {str(k): str(v) for k, v in value["made_with"].items()}
    return Head(made, inputs, str(value["tensors"]), str(value["files"]))


def _done(value: Any) -> Done:
    return Done(int(value["tensor"]), str(value["checksum"]), int(value["non_finite"]))
