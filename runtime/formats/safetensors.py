"""Safetensors headers. A header is hostile until proven: every fault has its own error, found
before anything is used.

A file is eight bytes of header length (little endian), the header (JSON), and the data, which the
header's tensors cover without overlap and without holes.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any, NoReturn

from ...compiler.checkpoint.catalog import CatalogError, InputFile, StoredTensor
from ...compiler.checkpoint.dtypes import SIZES
from ...grammar.collector import collector_paused
from ...grammar.records import dataclass
from ..files.faults import show
from ..files.opening import as_it_is, opened

MAX_HEADER = 100 << 20
"""The longest header accepted, in bytes; the safetensors library has the same limit."""

MAX_NAME = 1024
"""The longest tensor name accepted, in characters."""

MAX_RANK = 64
"""The most dimensions accepted; NumPy has the same limit."""

_LIMIT = 1 << 63

MAGIC = (
    (b"version ", "this is a Git LFS pointer and not the file itself: fetch it with `git lfs pull` or `hf download`"),
    (b"PK\x03\x04", "this looks like a PyTorch or zip archive, which is not safetensors"),
    (b"GGUF", "this looks like a GGUF file, which is not safetensors"),
    (b"\x80\x02", "this looks like a pickle, which is not safetensors"),
    (b"<!DOC", "this looks like a web page: the download went wrong"),
    (b"<html", "this looks like a web page: the download went wrong"),
)
"""How files begin that are taken for weights and are none."""


@dataclass(frozen=True, slots=True)
class Header:
    """A validated header. `tensors` in the order of the header, with absolute offsets; `file` as it
    was then.

    Only a pickle has `shared` (two names for the very same bytes) and `passed_over` (what it has
    besides tensors).
    """

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    file: InputFile
    shared: bool = False
    passed_over: tuple[str, ...] = ()


def read_header(path: str, file: int = 0) -> Header:
    """The header of the safetensors file at `path`; its tensors get `file` as their file's index.

    Raises CatalogError: E0403 where the file can't be read, E0410 to E0429 where it is not sound.
    """
    with opened(path, "E0429") as (descriptor, status):
        start = os.pread(descriptor, 8, 0)
        raw = _read(descriptor, header_length(start, status.st_size, path))
    tensors, metadata = parse_header(raw, status.st_size, path, file)
    return Header(tensors, metadata, as_it_is(path, status))


def header_length(start: bytes, size: int, path: str) -> int:
    """The length of the header, from the first eight bytes of a file of `size` bytes.

    Raises CatalogError E0410 to E0412.
    """
    help = next((text for magic, text in MAGIC if start.startswith(magic)), None)
    if len(start) < 8:
        _fail("E0410", f"file of {size} bytes is too short for a safetensors header", path, help)
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER:
        _fail("E0411", f"header length is {length} bytes, over the limit of {MAX_HEADER}", path, help)
    if length > size - 8:
        missing = length - (size - 8)
        _fail("E0412", f"header of {length} bytes reaches {missing} bytes past the end of the file", path, help)
    return length


def parse_header(raw: bytes, size: int, path: str, file: int = 0) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Tensors and metadata of the header `raw` of a file of `size` bytes at `path`.

    Raises CatalogError E0413 to E0428.
    """
    with collector_paused():
        entries, unique = _load(raw, path)
        metadata = _metadata(entries.pop("__metadata__"), path) if "__metadata__" in entries else None
        tensors = _tensors(entries, 8 + len(raw), path, file)
        if not unique:
            _check_duplicates(raw, len(tensors), metadata, path)
        _check_coverage(tensors, 8 + len(raw), size, path)
    return tensors, metadata or {}


def _read(descriptor: int, length: int) -> bytes:
    raw = os.pread(descriptor, length, 8)
    while len(raw) < length and (more := os.pread(descriptor, length - len(raw), 8 + len(raw))):
        raw += more
    return raw


# --- the text ------------------------------------------------------------------------------------


class _DuplicateKey(Exception):
    def __init__(self, key: str) -> None:
        self.key = key


def _load(raw: bytes, path: str) -> tuple[dict[str, Any], bool]:
    """The header as an object, and whether its keys are known to be unique already."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        _fail("E0413", f"header is not UTF-8 at byte {8 + error.start}", path)
    if not text.startswith("{"):
        _fail("E0414", "header does not begin with `{`", path)
    # an entry has three brackets in some fifty bytes; a text of little else would swell twentyfold
    # in memory
    if len(raw) > 1 << 20 and raw.count(b"[") + raw.count(b"{") > len(raw) // 8:
        _fail("E0415", "header has more brackets than a list of tensors can have", path)
    escaped = "\\" in text
    try:
        loaded = json.loads(text, object_pairs_hook=_unique if escaped else None)
    except RecursionError:
        _fail("E0415", "header is nested too deeply", path)
    except _DuplicateKey as error:
        _fail_duplicate(error.key, path)
    except ValueError as error:
        _fail("E0414", f"header is not JSON: {show(str(error))}", path)
    return loaded, escaped


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _DuplicateKey(next(key for key, count in counts.items() if count > 1))
    return result


def _check_duplicates(raw: bytes, tensors: int, metadata: dict[str, str] | None, path: str) -> None:
    """Finds keys that the parser has dropped because they came twice. `raw` has no backslash and
    sound entries.

    Each quote then begins or ends a string, and a sound entry has five: a dropped key shows as a
    difference. That is far quicker than a hook that sees every object's pairs.
    """
    strings = 5 * tensors + (0 if metadata is None else 1 + 2 * len(metadata))
    if raw.count(b'"') == 2 * strings:
        return
    try:
        json.loads(raw, object_pairs_hook=_unique)
    except _DuplicateKey as error:
        _fail_duplicate(error.key, path)
    raise AssertionError("strings are missing and yet no key appears twice")


def _fail_duplicate(key: str, path: str) -> NoReturn:
    _fail("E0416", f"key `{show(key)}` appears twice in the header", path)


# --- the entries ---------------------------------------------------------------------------------


def _metadata(value: Any, path: str) -> dict[str, str]:
    if type(value) is not dict:
        _fail("E0417", "`__metadata__` is not an object", path)
    for key, text in value.items():
        if type(text) is not str:
            _fail("E0417", f"value of `{show(key)}` in `__metadata__` is not a string", path)
        if not (_encodable(key) and _encodable(text)):
            _fail("E0417", f"`{show(key)}` in `__metadata__` is not valid text", path)
    return value


def _tensors(entries: dict[str, Any], base: int, path: str, file: int) -> dict[str, StoredTensor]:
    """The entries as tensors, offsets counted from the beginning of the file, each checked by
    itself."""
    tensors = {}
    prod = math.prod
    for name, entry in entries.items():
        try:
            dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            sound = len(entry) == 3 and type(shape) is list and len(shape) <= MAX_RANK and len(name) <= MAX_NAME
            for n in shape:
                # before the product: that of many long numbers would take for ever
                if type(n) is not int or not 0 <= n < _LIMIT:
                    sound = False
            if sound:
                sound = type(start) is type(end) is int and start >= 0
                sound = sound and prod(shape) * SIZES[dtype] == end - start < _LIMIT
                sound = sound and (start != end or not overflows(shape, SIZES[dtype]))
        except (KeyError, TypeError, ValueError):
            sound = False
        if not (sound and (name.isascii() or _encodable(name))):
            _fail_entry(name, entry, path)
        tensors[name] = StoredTensor(name, dtype, tuple(shape), file, base + start, base + end)
    return tensors


def _fail_entry(name: str, entry: Any, path: str) -> NoReturn:
    """Says what is wrong with an entry that is not sound."""
    tensor = f"tensor `{show(name)}`"
    if len(name) > MAX_NAME:
        _fail("E0428", f"{tensor} has a name of {len(name)} characters, over the limit of {MAX_NAME}", path)
    if not _encodable(name):
        _fail("E0428", f"{tensor} has a name that is not valid text", path)
    if type(entry) is not dict or entry.keys() != {"dtype", "shape", "data_offsets"}:
        _fail("E0418", f"entry of {tensor} is not an object of `dtype`, `shape` and `data_offsets`", path)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in SIZES:
        written = dtype if type(dtype) is str else json.dumps(dtype)
        _fail("E0419", f"{tensor} has the unknown dtype `{show(written)}`", path)
    if type(shape) is not list or not all(type(n) is int and n >= 0 for n in shape):
        _fail("E0420", f"shape of {tensor} is not a list of non-negative integers", path)
    if len(shape) > MAX_RANK:
        _fail("E0420", f"shape of {tensor} has {len(shape)} dimensions, over the limit of {MAX_RANK}", path)
    if overflows(shape, SIZES[dtype]):
        _fail("E0421", f"shape of {tensor} overflows: its size in bytes has no 63-bit number", path)
    if type(offsets) is not list or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in offsets):
        _fail("E0422", f"`data_offsets` of {tensor} is not two non-negative integers", path)
    start, end = offsets
    if end < start:
        _fail("E0422", f"`data_offsets` of {tensor} end before they begin: [{start}, {end}]", path)
    expected = math.prod(shape) * SIZES[dtype]
    _fail("E0423", f"{tensor} of shape {shape} and dtype `{dtype}` takes {expected} bytes but has {end - start}", path)


def overflows(shape: Sequence[int], size: int) -> bool:
    """Whether elements of `size` bytes in this shape, dimensions of at least 0, are more than a
    63-bit number of bytes.

    Multiplied in order, as the safetensors library does: a 0 hides the dimensions behind it, and
    not those before it.
    """
    total = size
    for n in shape:
        total *= n
        if n >= _LIMIT or total >= _LIMIT:
            return True
    return False


def _encodable(text: str) -> bool:
    """False for half a surrogate pair, which JSON can spell and no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- the layout ----------------------------------------------------------------------------------


def _check_coverage(tensors: Mapping[str, StoredTensor], base: int, size: int, path: str) -> None:
    """Sees that the tensors cover the data part of the file exactly, each byte once."""
    ordered = list(tensors.values())
    if any(before.end != after.start for before, after in pairwise(ordered)):
        ordered.sort(key=attrgetter("start", "end"))
    reached, last = base, ""
    for tensor in ordered:
        if tensor.start < reached:
            _fail("E0424", f"tensors `{show(last)}` and `{show(tensor.name)}` overlap", path)
        if tensor.start > reached:
            gap = tensor.start - reached
            _fail("E0425", f"{gap} bytes before tensor `{show(tensor.name)}` belong to no tensor", path)
        reached, last = tensor.end, tensor.name
    if reached > size:
        cut = next(tensor for tensor in ordered if tensor.end > size)
        message = f"file is truncated: {reached - size} bytes are missing, from tensor `{show(cut.name)}` on"
        _fail("E0426", message, path, "fetch the file again")
    if reached < size:
        _fail("E0427", f"{size - reached} bytes after the last tensor belong to no tensor", path)


def _fail(code: str, message: str, path: str, help: str | None = None) -> NoReturn:
    raise CatalogError(code, message, file=path, help=(help,) if help else ())
