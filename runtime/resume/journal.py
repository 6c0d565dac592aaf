"""The journal of a run: which tensors of the unfinished output are on disk, so that another run can
go on from there.

A line is a checksum of the rest (CRC-32, eight hexadecimal digits), a space, and JSON. The first
line says what is being made (`Head`), each other one that a tensor is complete (`Done`). A line is
written after the tensor's bytes are on disk, never before. Whatever a crash leaves at the end
counts only up to the first incomplete line.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ...compiler.plan.plan import Plan
from ...grammar.records import dataclass
from ..catalog.extension_code import named
from ..files.faults import show
from ..files.opening import is_short, regular
from ..files.syscalls import sync, write_all
from .environment import changed_code, difference, made_with

_LONGEST = 1 << 28
"""Bytes of a journal that are read at most: about a million tensors."""

_MOST = 1 << 63
"""More than any number of tensors, or of numbers in one."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a run makes, as far as bytes of tensors depend on it.

    `inputs` are path and identity of every input file; `tensors` is a digest of the output's
    tensors with their keys and places, `files` one of its weight files with their fixed bytes. How
    the work is divided is not in it, nor are the files that accompany the weights.
    """

    made_with: Mapping[str, str]
    inputs: tuple[tuple[str, str], ...]
    tensors: str
    files: str


@dataclass(frozen=True, slots=True)
class Done:
    """A complete tensor: its index in the plan, the checksum of its bytes, and how many numbers in
    it are not finite."""

    tensor: int
    checksum: str
    non_finite: int = 0


def head_of(plan: Plan) -> Head:
    """What a run of this plan makes."""
    tensors = hashlib.blake2b(digest_size=16)
    for t in plan.tensors:
        tensors.update(f"{t.name!r} {t.key} {t.file} {t.start} {t.nbytes}\n".encode(errors="backslashreplace"))
    if not all(t.key for t in plan.tensors):
        tensors.update(repr((plan.steps, plan.inputs)).encode(errors="backslashreplace"))
    files = hashlib.blake2b(digest_size=16)
    for f in plan.outputs:
        files.update(
            f"{f.name!r} {f.size} {[(b.start, len(b.data)) for b in f.fixed]}\n".encode(errors="backslashreplace")
        )
        for fixed in f.fixed:
            files.update(fixed.data)
    inputs = tuple((i.path, i.identity) for i in plan.inputs)
    return Head(made_with(plan), inputs, tensors.hexdigest(), files.hexdigest())


def other(then: Head, plan: Plan) -> str | None:
    """Why what was begun then is not what the plan makes, in a few words; None where it is the
    same."""
    if (why := difference(then.made_with, plan)) is not None:
        return why
    now = head_of(plan)
    if (then.tensors, then.files) == (now.tensors, now.files):
        return None
    if changed := changed_code(then.made_with, plan.made_by):
        return f"{named(changed[0])} has changed since"
    before = dict(then.inputs)
    for path, identity in now.inputs:
        if before.get(path, identity) != identity:
            return f"input `{show(path)}` has changed since"
    if set(before) != {path for path, _ in now.inputs}:
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
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        os.ftruncate(descriptor, length)
        return cls(path, descriptor, length)

    def append(self, entries: Iterable[Done]) -> None:
        """Adds entries and syncs them to disk. The bytes that they record must be there already."""
        fields = ({"tensor": e.tensor, "checksum": e.checksum, "non_finite": e.non_finite} for e in entries)
        self._append(b"".join(map(_line, fields)))

    def close(self) -> None:
        os.close(self._descriptor)

    def _append(self, data: bytes) -> None:
        write_all(self._descriptor, memoryview(data), self._length)
        os.fsync(self._descriptor)
        self._length += len(data)


@dataclass(frozen=True, slots=True)
class JournalContents:
    """What a journal says; the good part is `length` bytes long."""

    head: Head
    entries: tuple[Done, ...]
    length: int


def read(path: str) -> JournalContents | None:
    """The contents of a journal up to the first incomplete line; None where nothing can be used.

    A complete line that no run would write is not the result of a crash: then nothing in the
    journal counts. Raises OSError where that can't be determined, as when too many files are open.
    """
    try:
        with (
            regular(path, os.O_RDONLY | os.O_NOFOLLOW) as (descriptor, _),
            open(descriptor, "rb", closefd=False) as file,
        ):
            data = file.read(_LONGEST)
    except OSError as error:
        if is_short(error) and os.path.lexists(path):
            raise
        return None
    head: Head | None = None
    entries: list[Done] = []
    length = 0
    for line in data.splitlines(keepends=True):
        text = _checked(line)
        if text is None:
            break
        try:
            value = json.loads(text)
            if head is None:
                head = _head(value)
            else:
                entries.append(_done(value))
        except (ValueError, RecursionError):
            return None
        length += len(line)
    return JournalContents(head, tuple(entries), length) if head is not None else None


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


def _checked(line: bytes) -> bytes | None:
    """The JSON of a line, if it is the one that was written."""
    crc, _, text = line.removesuffix(b"\n").partition(b" ")
    intact = line.endswith(b"\n") and crc == f"{zlib.crc32(text):08x}".encode()
    return text if intact else None


def _head(value: Any) -> Head:
    """Raises ValueError."""
    made, inputs, tensors, files = _fields(value, "made_with", "inputs", "tensors", "files")
    pairs = type(inputs) is list and all(type(pair) is list and len(pair) == 2 and _texts(pair) for pair in inputs)
    if type(made) is not dict or not pairs or not _texts((tensors, files)):
        raise ValueError("not the head of a journal")
    return Head(made, tuple((path, identity) for path, identity in inputs), tensors, files)


def _done(value: Any) -> Done:
    """Raises ValueError."""
    tensor, checksum, non_finite = _fields(value, "tensor", "checksum", "non_finite")
    numbers = all(type(number) is int and 0 <= number < _MOST for number in (tensor, non_finite))
    if not numbers or not _texts((checksum,)):
        raise ValueError("not an entry of a journal")
    return Done(tensor, checksum, non_finite)


def _fields(value: Any, *names: str) -> list[Any]:
    """The values of an object that has these names and no others. Raises ValueError."""
    if type(value) is not dict or value.keys() != set(names):
        raise ValueError(f"not an object of {', '.join(names)}")
    return [value[name] for name in names]


def _texts(values: Iterable[Any]) -> bool:
    return all(type(value) is str for value in values)
