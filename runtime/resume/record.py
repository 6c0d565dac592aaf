"""What an output's provenance file says of its bytes, so that they can be checked, and taken over by another run.

The compiler writes what is known before the run (`compiler/card.py`). At its end is added:

    made_with   versions, device and processor (`made_with.py`)
    weights     name of the weight file: [size, mtime_ns]
    tensors     name: [key, checksum or null, numbers that are not finite, dtype, shape]

Keys are those of `compiler/content.py`, checksums those of `checksums.py`; null: copied by the kernel, not seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...compiler.card import PROVENANCE
from ...compiler.plan import Document, Plan
from ...grammar.records import dataclass
from ..writer import SealedFile
from .journal import Done
from .made_with import made_with

_LONGEST = 1 << 29
"""Bytes of a provenance file that are read at most: about a million tensors."""

_ADDED = ("made_with", "weights", "tensors")


@dataclass(frozen=True, slots=True)
class RecordedTensor:
    """A tensor of an output: what it is, the checksum of its bytes (None: not known), what in it is not finite."""

    key: str
    checksum: str | None
    non_finite: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What an output's provenance file says. `base` is what the compiler wrote; the rest is described above."""

    base: Mapping[str, Any]
    made_with: Mapping[str, Any]
    weights: tuple[SealedFile, ...]
    tensors: Mapping[str, RecordedTensor]


def with_record(plan: Plan, weights: Sequence[SealedFile], known: Mapping[int, Done]) -> tuple[Document, ...]:
    """The plan's documents, the provenance file among them completed; `known` are the tensors whose checksum is known,
    by index."""
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
        ("weights", _table((w.name, [w.size, w.mtime_ns]) for w in weights)),
        ("tensors", _table(tensors)),
    ]
    whole = text.rstrip().removesuffix("}").rstrip()
    return whole + "".join(f",\n  {json.dumps(name)}: {value}" for name, value in added) + "\n}\n"


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    """An object with an entry a line."""
    encode = json.JSONEncoder().encode
    lines = [f"    {encode(name)}: {encode(value)}" for name, value in rows]
    return "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"


def read_record(folder: str) -> Record | None:
    """The record of the output in a folder; None where there is none, or it isn't one that this version writes."""
    try:
        with open(os.path.join(folder, PROVENANCE), encoding="utf-8") as file:
            data = json.loads(file.read(_LONGEST))
        weights = tuple(SealedFile(str(n), int(size), int(mtime)) for n, (size, mtime) in data["weights"].items())
        tensors = {str(n): _tensor(*value) for n, value in data["tensors"].items()}
        base = {k: v for k, v in data.items() if k not in _ADDED}
        return Record(base, dict(data["made_with"]), weights, tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _tensor(key: Any, checksum: Any, non_finite: Any, dtype: Any, shape: Any) -> RecordedTensor:
    seen = None if checksum is None else str(checksum)
    return RecordedTensor(str(key), seen, int(non_finite), str(dtype), tuple(int(n) for n in shape))
