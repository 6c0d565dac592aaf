"""The zip archive that `torch.save` writes: uncompressed records, each a range of the file.

Its list of contents is at the end and is hostile until proven. A record's bytes are used only where
the list and what stands before the record agree, and no two records share a byte.

`zipfile` reads such a list too, and the tests hold this reader to it. But it looks for an end
within the last 64 KiB, takes names from extra fields that PyTorch does not look at, and of a
hostile list makes three times the work and more than twice the memory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from itertools import pairwise
from typing import NoReturn

from ....compiler.checkpoint.catalog import CatalogError
from ....grammar.records import dataclass
from ...files.faults import show
from ...files.syscalls import read_all
from ..safetensors import MAGIC
from .convert import AGAIN, CONVERT_SCRIPT

MAX_LIST = 32 << 20
"""The longest list of contents accepted, in bytes; a record takes about a hundred."""

MAX_RECORD_NAME = 1024
"""The longest name of a record accepted, in bytes."""

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LISTED = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")

_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ArchiveRecord:
    """A record of an archive: the file's bytes `[start, end)`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class _Listed:
    """What the list of contents says of a record; `header` is where its own header begins."""

    name: bytes
    size: int
    packed: int
    method: int
    header: int


def read_records(descriptor: int, size: int, path: str) -> Mapping[str, ArchiveRecord]:
    """The records of an open file of `size` bytes by name, without the folder that all of them are
    in.

    Raises OSError; CatalogError: E0440 for what is no archive of tensors, E0441 for one that is not
    sound.
    """
    start = os.pread(descriptor, 16, 0)
    if start[:1] == b"\x80":
        message = "file is a plain pickle, as PyTorch wrote them before version 1.6, and no archive of tensors"
        raise CatalogError("E0440", message, file=path, help=AGAIN)
    if start[:4] != b"PK\x03\x04":
        seen = next((text for magic, text in MAGIC if start.startswith(magic)), None)
        help = (seen,) if seen else ("fetch the file again, or name the one that the weights are in",)
        raise CatalogError("E0440", "file is no archive that `torch.save` writes", file=path, help=help)
    begin, end, count = _whereabouts(descriptor, size, path)
    raw = read_range(descriptor, begin, end - begin)
    if len(raw) != end - begin:
        _fail("file ends within its list of contents", path)
    listed = _listed(raw, count, path)
    if any(b"/code/" in entry.name or entry.name.endswith(b"/constants.pkl") for entry in listed):
        raise CatalogError("E0440", "file is a program (TorchScript), not only weights", file=path, help=CONVERT_SCRIPT)
    records: dict[str, ArchiveRecord] = {}
    folder = listed[0].name.partition(b"/")[0]
    taken: list[tuple[int, int, str]] = []
    for entry in listed:
        name = _inner(entry.name, folder, path)
        if name in records:
            _fail(f"two records have the name `{show(name)}`", path)
        records[name] = _record(descriptor, entry, begin, name, path)
        taken.append((entry.header, records[name].end, name))
    taken.sort()
    for before, after in pairwise(taken):
        if after[0] < before[1]:
            _fail(f"records `{show(before[2])}` and `{show(after[2])}` overlap", path)
    return records


def read_range(descriptor: int, start: int, length: int) -> bytes:
    """The file's bytes from `start` on, fewer where it ends before. Raises OSError."""
    raw = bytearray(length)
    return bytes(raw[: read_all(descriptor, memoryview(raw), start)])


def _whereabouts(descriptor: int, size: int, path: str) -> tuple[int, int, int]:
    """Where the list of contents begins and ends, and how many records it has.

    The end of the archive must be the last bytes of the file. A comment after it, which the format
    allows, would let two readers find two ends.
    """
    tail_start = max(0, size - _END.size - _LOCATOR.size)
    tail = read_range(descriptor, tail_start, size - tail_start)
    if len(tail) < _END.size or not tail[-_END.size :].startswith(b"PK\x05\x06"):
        _fail("file has no end of an archive: it is truncated, or something follows", path, "fetch the file again")
    _, disk, first_disk, here, count, length, begin, comment = _END.unpack(tail[-_END.size :])
    end = size - _END.size
    if comment:
        _fail("the archive's end has a comment", path)
    if tail.startswith(b"PK\x06\x07"):
        end, count, length, begin = _large(descriptor, tail, size, path)
    elif disk or first_disk or here != count or _FULL32 in (length, begin):
        _fail("the archive's end is not sound", path)
    if begin + length != end:
        _fail("the list of contents does not end where the archive's end begins", path)
    if length > MAX_LIST:
        _fail(f"the list of contents has {length} bytes, over the limit of {MAX_LIST}", path)
    if not 0 < count <= length // _LISTED.size:
        _fail(f"the list of contents has {length} bytes and claims {count} records", path)
    return begin, end, count


def _large(descriptor: int, tail: bytes, size: int, path: str) -> tuple[int, int, int, int]:
    """The end of an archive in its 64-bit form: where it begins, and number, length and begin of
    the list."""
    _, disk, at, disks = _LOCATOR.unpack(tail[: _LOCATOR.size])
    if disk or disks != 1 or at + _END64.size != size - _END.size - _LOCATOR.size:
        _fail("the archive's 64-bit end is not where it should be", path)
    raw = read_range(descriptor, at, _END64.size)
    if len(raw) != _END64.size:
        _fail("the archive's 64-bit end is truncated", path)
    magic, rest, _, _, disk, first_disk, here, count, length, begin = _END64.unpack(raw)
    if magic != b"PK\x06\x06" or rest != _END64.size - 12 or disk or first_disk or here != count:
        _fail("the archive's 64-bit end is not sound", path)
    return at, count, length, begin


def _listed(raw: bytes, count: int, path: str) -> list[_Listed]:
    entries = []
    at = 0
    for _ in range(count):
        if at + _LISTED.size > len(raw):
            _fail("the list of contents is cut off", path)
        fields = _LISTED.unpack_from(raw, at)
        magic, _, _, flags, method, _, _, _, packed, size, name_length, extra_length, comment, disk = fields[:14]
        header = fields[16]
        at += _LISTED.size
        name, extra = raw[at : at + name_length], raw[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length + comment
        if magic != b"PK\x01\x02" or at > len(raw):
            _fail("the list of contents is not sound", path)
        if flags & _ENCRYPTED:
            _fail_record(_text(name), "is encrypted", path)
        if disk:
            _fail_record(_text(name), "is in another file", path)
        size, packed, header = _widened(extra, (size, packed, header), name, path)
        entries.append(_Listed(name, size, packed, method, header))
    if at != len(raw):
        _fail("the list of contents goes on after its last record", path)
    return entries


def _widened(extra: bytes, values: tuple[int, int, int], name: bytes, path: str) -> tuple[int, int, int]:
    """Size, packed size and place of a record: those with all bits set stand in 64 bits in the
    extra field."""
    if _FULL32 not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            wide = [number for (number,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8])]
            if len(wide) < values.count(_FULL32):
                break
            size, packed, header = (wide.pop(0) if value == _FULL32 else value for value in values)
            return size, packed, header
        at += 4 + length
    _fail_record(_text(name), "lacks the 64-bit sizes that it refers to", path)


def _inner(raw: bytes, folder: bytes, path: str) -> str:
    """A record's name below the archive's one folder."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        _fail_record(_text(raw), "has a name that is not text", path)
    head, slash, inner = name.partition("/")
    parts = inner.split("/")
    if not slash or head.encode() != folder or head in ("", ".", "..") or len(raw) > MAX_RECORD_NAME:
        _fail_record(name, "is not in the archive's folder", path)
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable():
        _fail_record(name, "has a name that leads elsewhere", path)
    return inner


def _record(descriptor: int, entry: _Listed, limit: int, name: str, path: str) -> ArchiveRecord:
    """The range of a record, from the header before it. All of it must lie before `limit`, where
    the list begins."""
    if entry.method:
        _fail_record(name, "is compressed, which `torch.save` never does", path)
    if entry.size != entry.packed:
        _fail_record(name, f"has {entry.size} bytes in {entry.packed}, though it is not compressed", path)
    if entry.header + _LOCAL.size + len(entry.name) > limit:
        _fail_record(name, "begins past the end of the data", path)
    raw = read_range(descriptor, entry.header, _LOCAL.size + len(entry.name))
    if len(raw) != _LOCAL.size + len(entry.name):
        _fail_record(name, "is cut off", path)
    magic, _, flags, method, _, _, _, _, _, name_length, extra_length = _LOCAL.unpack_from(raw)
    if magic != b"PK\x03\x04" or method or flags & _ENCRYPTED or raw[_LOCAL.size :] != entry.name:
        _fail_record(name, "is not what the list of contents says", path)
    if name_length != len(entry.name):
        _fail_record(name, "is not what the list of contents says", path)
    start = entry.header + _LOCAL.size + name_length + extra_length
    if start + entry.size > limit:
        over = start + entry.size - limit
        _fail_record(name, f"reaches {over} bytes past the end of the data", path, "fetch the file again")
    return ArchiveRecord(start, start + entry.size)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _fail_record(name: str, what: str, path: str, *help: str) -> NoReturn:
    _fail(f"record `{show(name)}` {what}", path, *help)


def _fail(message: str, path: str, *help: str) -> NoReturn:
    raise CatalogError("E0441", message, file=path, help=help)
