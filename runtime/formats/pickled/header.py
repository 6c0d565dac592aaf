"""The header of a pickled checkpoint: its tensors as ranges of the file, like those of a
safetensors header."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NoReturn

from ....compiler.checkpoint.catalog import CatalogError, StoredTensor
from ....compiler.checkpoint.dtypes import SIZES
from ....grammar.collector import collector_paused
from ....grammar.records import dataclass
from ...files.faults import show
from ...files.opening import as_it_is, opened
from ..safetensors import MAX_NAME, Header, overflows
from .archive import ArchiveRecord, read_range, read_records
from .convert import AGAIN, PLAIN, conversion
from .interpreter import interpret
from .standins import Foreign, Storage, Tensor
from .state import find_state

_OTHERWISE = ("load it with PyTorch, make a plain tensor of it, or take it out, and save the rest with safetensors",)

MAX_PICKLE = 64 << 20
"""The longest pickle accepted, in bytes; a tensor takes about 150."""


def read_pickle(path: str, file: int = 0, key: str | None = None) -> Header:
    """The header of the pickled checkpoint at `path`; its tensors get `file` as their file's index.
    They are those under `key`, where the pickle has more than one mapping of such.

    Raises CatalogError: E0403 where the file can't be read, E0429, E0440 to E0448 and E0484 where
    it is not what can be used.
    """
    with opened(path, "E0429") as (descriptor, status), collector_paused():
        records = read_records(descriptor, status.st_size, path)
        _check_order(descriptor, records, path)
        pickle = interpret(_pickle(descriptor, records, path), path)
        state = find_state(pickle.value, path, key)
        make = _Ranges(records, file, path, state.key, pickle.unfamiliar)
        tensors = {name: make.stored(name, found) for name, found in state.tensors.items()}
    shared = _shared(tensors.values())
    return Header(tensors, {}, as_it_is(path, status), shared, state.others)


def _check_order(descriptor: int, records: Mapping[str, ArchiveRecord], path: str) -> None:
    record = records.get("byteorder")
    if record is None:
        return  # before version 2.1 it was not written, and no machine in use was big-endian
    order = read_range(descriptor, record.start, min(record.size, 16))
    if order != b"little":
        message = f"numbers are stored in the byte order `{show(order.decode('utf-8', 'backslashreplace'))}`"
        raise CatalogError("E0448", message, file=path, help=AGAIN)


def _pickle(descriptor: int, records: Mapping[str, ArchiveRecord], path: str) -> bytes:
    record = records.get("data.pkl")
    if record is None:
        message = "the archive has no `data.pkl`, so it is none that `torch.save` writes"
        raise CatalogError("E0440", message, file=path, help=("name the file or folder that the weights are in",))
    if record.size > MAX_PICKLE:
        message = f"the pickle has {record.size} bytes, over the limit of {MAX_PICKLE}"
        raise CatalogError("E0443", message, file=path)
    return read_range(descriptor, record.start, record.size)


_MADE_PLAIN = {
    "quantised": "(v.dequantize() if v.is_quantized else v).contiguous().clone()",
    "sparse": "v.to_dense().contiguous().clone()",
    "lazily negated or conjugated": "v.resolve_conj().resolve_neg().contiguous().clone()",
}
"""How tensors of a kind that safetensors lacks become plain ones, in Python."""


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Makes ranges of the file `file` at `path` of tensors that were found under `key`;
    `unfamiliar` as `Interpreted` has it."""

    records: Mapping[str, ArchiveRecord]
    file: int
    path: str
    key: tuple[str, ...]
    unfamiliar: bool

    def stored(self, name: str, found: Tensor | Foreign) -> StoredTensor:
        """A tensor's range of the file. Raises CatalogError E0445 to E0447."""
        path = self.path
        if len(name) > MAX_NAME:
            _fail("E0447", name, f"has a name of {len(name)} characters, over the limit of {MAX_NAME}", path)
        if isinstance(found, Foreign):
            plain = _MADE_PLAIN.get(found.kind)
            help = _OTHERWISE if plain is None else self.convert(plain)
            _fail("E0446", name, f"is {found.kind}, which safetensors can't hold", path, *help)
        dtype = found.element.dtype
        if dtype is None:
            _fail("E0446", name, f"has the dtype `{found.element.name}`, which is not read", path, *_OTHERWISE)
        storage, shape, size = found.storage, found.shape, SIZES[dtype]
        # torch itself has no such tensor, wherever in its shape a zero stands
        if overflows([n for n in shape if n], size):
            _fail("E0447", name, "has a shape that overflows: its size in bytes has no 63-bit number", path)
        record = _record(name, storage, self.records, path)
        nbytes = math.prod(shape) * size
        if not _packed(shape, found.strides):
            what = "is a view whose elements don't lie in order, such as a transposed one"
            _fail("E0445", name, what, path, *self.convert(PLAIN))
        first = found.offset * size
        if nbytes and first + nbytes > record.size:
            over = first + nbytes - record.size
            _fail("E0447", name, f"reaches {over} bytes past the end of its storage", path)
        start = record.start + (first if nbytes else 0)
        return StoredTensor(name, dtype, shape, self.file, start, start + nbytes)

    def convert(self, each: str) -> tuple[str, ...]:
        return conversion(self.key, self.unfamiliar, each)


def _record(name: str, storage: Storage, records: Mapping[str, ArchiveRecord], path: str) -> ArchiveRecord:
    """Where a storage lies. It must have the size that the pickle says."""
    record = records.get(f"data/{storage.key}")
    if record is None:
        _fail("E0447", name, f"lies in storage `{show(storage.key)}`, which the archive lacks", path)
    size = 1 if storage.element is None else SIZES.get(storage.element.dtype or "", 0)
    if size and storage.count * size != record.size:
        expected = storage.count * size
        place = f"storage `{show(storage.key)}` of {record.size} bytes"
        _fail("E0447", name, f"lies in {place}, which should have {expected}", path)
    return record


def _packed(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether elements lie one after the other, in row-major order."""
    expected = 1
    if 0 in shape:
        return True
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True


def _shared(tensors: Iterable[StoredTensor]) -> bool:
    """Whether two names stand for the very same bytes."""
    ranges = [(t.start, t.dtype, t.shape) for t in tensors if t.nbytes]
    return len(set(ranges)) < len(ranges)


def _fail(code: str, name: str, what: str, path: str, *help: str) -> NoReturn:
    raise CatalogError(code, f"tensor `{show(name)}` {what}", file=path, help=help)
