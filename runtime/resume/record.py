"""What an output's provenance file says of its bytes, so that they can be checked, and taken over
by another run.

The compiler writes what is known before the run (`compiler/emit/card.py`). At its end is added:

    made_with       versions, device and processor (`environment.py`)
    files           names of all files of the output
    weights         name of the weight file, its folder included: [size, mtime_ns, device, inode]
    tensors         name: [key, checksum or null, numbers that are not finite, dtype, shape]
    record_sha256   SHA-256 of the text before it, so that the record itself can be checked

Keys are those of `compiler/emit/content.py`, checksums those of `checksums.py`; null: copied by the
kernel, not seen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any

from ...compiler.checkpoint.catalog import CatalogError
from ...compiler.emit.card import PROVENANCE, RECORDED
from ...compiler.plan.plan import Document, Plan
from ...grammar.records import dataclass
from ..catalog.documents import parse_json, read_text
from .environment import made_with
from .journal import Done
from .sealed import SealedFile

_LONGEST = 1 << 29
"""Bytes of a provenance file that are read at most: about a million tensors."""

DIGEST = "record_sha256"
"""Name of the record's digest of itself."""

_ADDED: Mapping[str, tuple[type, ...]] = {
    "made_with": (dict,),
    "files": (list,),
    "weights": (dict,),
    "tensors": (dict,),
}


@dataclass(frozen=True, slots=True)
class RecordedTensor:
    """A tensor of an output: what it is, the checksum of its bytes (None: not known), what in it is
    not finite."""

    key: str
    checksum: str | None
    non_finite: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What an output's provenance file says. `base` is what the compiler wrote; the rest is
    described above."""

    base: Mapping[str, Any]
    made_with: Mapping[str, Any]
    files: frozenset[str]
    weights: tuple[SealedFile, ...]
    tensors: Mapping[str, RecordedTensor]


def with_record(plan: Plan, weights: Sequence[SealedFile], known: Mapping[int, Done]) -> tuple[Document, ...]:
    """The plan's documents, the provenance file among them completed; `known` are the tensors whose
    checksum is known, by index."""
    return tuple(
        Document(d.name, _completed(d.text, plan, weights, known)) if d.name == PROVENANCE else d
        for d in plan.documents
    )


def _completed(text: str, plan: Plan, weights: Sequence[SealedFile], known: Mapping[int, Done]) -> str:
    tensors: list[tuple[str, Any]] = []
    for index, tensor in enumerate(plan.tensors):
        done = known.get(index)
        found = (done.checksum, done.non_finite) if done else (None, 0)
        tensors.append((tensor.name, (tensor.key, *found, tensor.dtype, tensor.shape)))
    added = [
        ("made_with", json.dumps(made_with(plan))),
        ("files", json.dumps(sorted(files_of(plan)))),
        ("weights", _table((w.name, [w.size, w.mtime_ns, w.device, w.inode]) for w in weights)),
        ("tensors", _table(tensors)),
    ]
    whole = text.rstrip().removesuffix("}").rstrip()
    return sealed_text(whole + "".join(f",\n  {json.dumps(name)}: {value}" for name, value in added) + "\n}\n")


def files_of(plan: Plan) -> frozenset[str]:
    """The names of all files of the output."""
    return frozenset(part.name for parts in (plan.outputs, plan.documents, plan.tagalongs) for part in parts)


def sealed_text(text: str) -> str:
    """A JSON object's text with a digest of it as the last entry."""
    before = text.rstrip().removesuffix("}").rstrip() + f',\n  "{DIGEST}": "'
    return f'{before}{_digest(before)}"\n}}\n'


def _is_sealed(text: str) -> bool:
    before, mark, _ = text.rpartition(f'"{DIGEST}": "')
    return text == f'{before}{mark}{_digest(before + mark)}"\n}}\n'


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    """An object with one entry per line."""
    encode = json.JSONEncoder().encode
    lines = [f"    {encode(name)}: {encode(value)}" for name, value in rows]
    return "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"


def read_record(folder: str) -> Record:
    """The record of the output in a folder.

    Raises CatalogError: E0403 where it can't be read, E0650 where it isn't as a run of this version
    has written it.
    """
    path = os.path.join(folder, PROVENANCE)
    return parse_record(read_text(path, limit=_LONGEST, code="E0650"), path)


def parse_record(text: str, path: str) -> Record:
    """The record that is the text of the file at `path`. Raises CatalogError E0650."""
    data = parse_json(text, path, code="E0650")
    if DIGEST not in data:
        raise _unsound(path, f"has no `{DIGEST}`, so that nothing tells whether it is as it was written")
    if not _is_sealed(text):
        raise _unsound(path, f"has been changed since it was written: its text is not that of `{DIGEST}`")
    for name, kinds in {**RECORDED, **_ADDED}.items():
        if name not in data:
            raise _unsound(path, f"lacks `{name}`")
        if type(data[name]) not in kinds:
            raise _unsound(path, f"has something else than it should as `{name}`")
    try:
        weights = tuple(_weights(name, *numbers) for name, numbers in data["weights"].items())
        tensors = {name: _tensor(*value) for name, value in data["tensors"].items()}
        if not all(type(name) is str for name in data["files"]):
            raise TypeError("not a name")
    except (TypeError, ValueError) as error:
        raise _unsound(path, "has something else than it should in `files`, `weights` or `tensors`") from error
    base = {name: value for name, value in data.items() if name not in _ADDED and name != DIGEST}
    return Record(base, data["made_with"], frozenset(data["files"]), weights, tensors)


def found_record(folder: str) -> Record | None:
    """The record of the output in a folder; None where there is none to go by."""
    try:
        return read_record(folder)
    except CatalogError:
        return None


def _unsound(path: str, what: str) -> CatalogError:
    return CatalogError("E0650", f"`{PROVENANCE}` {what}", file=path)


def _weights(name: str, *numbers: Any) -> SealedFile:
    """Raises TypeError and ValueError."""
    if any(part in ("", ".", "..") for part in name.split("/")) or b"\0" in os.fsencode(name):
        raise ValueError("not the name of a file in the folder")
    return SealedFile(name, *map(_number, numbers))


def _tensor(key: Any, checksum: Any, non_finite: Any, dtype: Any, shape: Any) -> RecordedTensor:
    """Raises TypeError and ValueError."""
    if not (type(key) is type(dtype) is str and type(checksum) in (str, NoneType) and type(shape) is list):
        raise TypeError("not a tensor")
    return RecordedTensor(key, checksum, _number(non_finite), dtype, tuple(map(_number, shape)))


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise TypeError("not a number of something")
    return value
