"""Files as `torch.save` writes them, made by hand: records in a zip archive, pickles put together
from instructions."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, count: int, kind: str = "torch\nFloatStorage") -> bytes:
    return b"(" + text("storage") + f"c{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(
    shape: Sequence[int] = (2,), strides: Sequence[int] = (1,), offset: int = 0, key: str = "0", count: int = 2
) -> bytes:
    """The instructions that make a tensor, of float32."""
    made = storage(key, count) + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + ORDERED
    return REBUILD + b"(" + made + b"tR"


def state(**tensors: bytes) -> bytes:
    """A whole pickle: a dict of what these instructions make."""
    items = b"".join(text(name) + made for name, made in tensors.items())
    return b"\x80\x02}(" + items + b"u."


def archive(
    records: Mapping[str, bytes], *, folder: str = "archive", method: int = zipfile.ZIP_STORED, comment: bytes = b""
) -> bytes:
    """A zip archive of records in a folder, not aligned to anything."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as z:
        for name, data in records.items():
            z.writestr(zipfile.ZipInfo(f"{folder}/{name}" if folder else name), data, method)
        z.comment = comment
    return raw.getvalue()


def saved(pickle: bytes, **storages: bytes) -> bytes:
    """An archive of a pickle and its storages, `data_0` for `data/0`; by default one of two
    floats."""
    data = {name.replace("_", "/"): raw for name, raw in (storages or {"data_0": bytes(8)}).items()}
    return archive({"data.pkl": pickle, "byteorder": b"little", **data, "version": b"3\n"})


def unaligned(path: Path) -> None:
    """Packs a file of `torch.save` anew, without the padding that aligns its records."""
    with zipfile.ZipFile(path) as z:
        records = {name.partition("/")[2]: z.read(name) for name in z.namelist()}
    path.write_bytes(archive(records, folder="odd"))
