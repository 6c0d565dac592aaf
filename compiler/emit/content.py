"""What each output tensor is, as one key: two tensors of equal keys have equal bytes.

So a key names a tensor's value across runs: an output keeps the keys of its tensors, and the next
run computes only those whose key is another. What a key must cover, and where that comes in:

    operations, their order, attributes, shapes, dtypes     `graph/keys.py`, the form of a value
    model and stream of random masks, and the seed          the same: a mask's key is made of them
    files read, by identity; offsets and dtypes in them     `_places`, `file_key`
    code of kernels of packages                             `code_of`, under each kernel's address
    mergec's own code, for all that is no copy      `graph/code_digest.py`, under the empty text
    dtype computed in, dtype and shape stored               `with_keys`
    what was put together in one stored tensor, and where   `with_keys`
    whether infinities and NaNs of copies were looked for   `with_keys`

What concerns every tensor is not in a key: versions of libraries, kind of device, processor. A run
compares these once (`runtime/resume/environment.py`) and takes over nothing where they differ. Nor
is what changes no byte: how the work is divided (lanes, blocks, budgets), names of tensors and
weight files, remarks. docs/reliability.md has the same as a table of changes, which
`tests/resume/test_changes.py` tries one by one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence

from ..checkpoint.catalog import InputFile
from ..checkpoint.model import Model
from ..evaluate.extensions import INSTALLED, Primitive
from ..graph.code_digest import own_code
from ..graph.graph import Graph, StoredRange
from ..graph.keys import output_keys
from ..pack.packing import Packing
from ..plan.plan import Code, OutputTensor

SIZE = 16
"""Bytes of a key; twice as many hexadecimal digits."""


def with_keys(
    graph: Graph,
    packing: Packing,
    models: Sequence[Model],
    compute: str,
    made_by: Sequence[Code],
    *,
    finite: bool = False,
    files: Mapping[tuple[int, int], str] | None = None,
) -> tuple[OutputTensor, ...]:
    """The stored tensors of the output with their keys. `compute` is the dtype that is computed in,
    F32 or F64, `made_by` the code that does it (`code_of`).

    `files` are the keys of the input files by model number and place in the model; by default those
    of the files as they are now (`file_keys`). Keys that an output recorded tell whether a recipe
    is the one that made it, wherever its inputs lie by now.

    `finite`: infinities and NaNs are an error. Copies that were made when they were none were not
    looked at, so their keys are others.
    """
    parts: list[list[tuple[int, str, str]]] = [[] for _ in packing.tensors]
    copied = [finite] * len(packing.tensors)
    code = {each.kernel: each.digest or os.urandom(SIZE).hex() for each in made_by}
    for output, key in output_keys(graph, _places(models, file_keys(models) if files is None else files), code):
        slot = packing.slots[output.name]
        parts[slot.tensor].append((slot.start, output.dtype, key))
        copied[slot.tensor] &= output.node.op == "source"
    keyed = []
    for t, found, looked in zip(packing.tensors, parts, copied, strict=True):
        made = [(start - t.start, dtype, key) for start, dtype, key in sorted(found)]
        key = _digest(f"{compute}|{t.dtype}|{t.shape}|{made}" + "|finite" * looked)
        # the constructor, as there may be many tensors
        keyed.append(OutputTensor(t.name, t.dtype, t.shape, t.file, t.start, t.nbytes, t.aliases, key))
    return tuple(keyed)


def code_of(graph: Graph, version: str, primitives: Sequence[Primitive]) -> tuple[Code, ...]:
    """The code that the graph's values are made with: mergec's own, of this version, and that of
    the primitives in it."""
    used = {node.attribute("kernel") for node in graph.nodes if node.op in INSTALLED} if primitives else ()
    kernels = {p.kernel: p for p in primitives if p.kernel in used}
    found = [Code(p.kernel, p.package, p.code() if p.code is not None else "") for p in kernels.values()]
    return (Code("", f"mergec {version}", own_code()), *found)


def file_key(file: InputFile) -> str:
    """The identity of an input file as a digest, which says nothing of the machine."""
    return _digest(file.identity)


def file_keys(models: Sequence[Model]) -> dict[tuple[int, int], str]:
    """The keys of all files of the models, by model number and place in the model."""
    return {(m.number, k): file_key(file) for m in models for k, file in enumerate(m.checkpoint.files)}


def _places(models: Sequence[Model], files: Mapping[tuple[int, int], str]) -> Callable[[StoredRange], str]:
    by_number = {m.number: m for m in models}

    def place(found: StoredRange) -> str:
        stored = by_number[found.model].checkpoint.tensors[found.stored]
        return f"{files[found.model, stored.file]}+{stored.start}+{found.first} {found.dtype}"

    return place


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=SIZE).hexdigest()
