"""An earlier output at the target: which parts of it are still right and need not be computed
again.

Its provenance file says which key every tensor has (`record.py`). A tensor of the plan with the
same key has the same bytes, if these are still what was written: the weight file's size and time of
change are as recorded, or else the checksum of the tensor is.
"""

from __future__ import annotations

import filecmp
import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from ...compiler.checkpoint.catalog import CatalogError, StoredTensor, prefix_of
from ...compiler.emit.card import PROVENANCE
from ...compiler.plan.plan import OutputTensor, Plan, PlannedOutput
from ...compiler.plan.prune import Found
from ...grammar.records import dataclass
from ..catalog.extension_code import named
from ..files.compare import holds
from ..files.opening import regular
from ..formats.outputs import reader_of
from .confirm import Stored, confirm
from .environment import changed_code, difference
from .journal import Done
from .record import Record, RecordedTensor, files_of, found_record
from .sealed import sealed


@dataclass(frozen=True, slots=True)
class Reused:
    """A tensor of an earlier output: where its bytes lie, their checksum (None: not known), what in
    it is not finite.

    `trusted`: its file is as it was written. Otherwise the checksum has to be compared.
    """

    found: Found
    checksum: str | None
    non_finite: int
    trusted: bool


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier output that was made by mergec, compared with a plan.

    `tensors` are those of the plan that it holds, by index; `same_files` the plan's weight files,
    by index, that stand in it from the first byte to the last, with their paths. `same_companions`:
    all other files of the plan are as they would be written. `why_not` says in a few words why
    nothing of it can be used; `changed` is the code that has changed since, so what it made is made
    anew.
    """

    tensors: Mapping[int, Reused]
    same_files: Mapping[int, str]
    same_companions: bool
    outputs: int
    why_not: str | None = None
    changed: tuple[str, ...] = ()

    @property
    def unchanged(self) -> bool:
        """Whether the plan would make what is there already."""
        return (
            self.same_companions
            and len(self.same_files) == self.outputs
            and all(t.trusted for t in self.tensors.values())
        )


def examine(path: str, plan: Plan) -> Earlier | None:
    """The earlier output at `path`; None where there is none that was made by mergec. Reads no
    weights."""
    if plan.single or not os.path.isdir(path):
        return None
    record = found_record(path)
    if record is None:
        return None
    why_not = difference(record.made_with, plan)
    if why_not is not None:
        return Earlier({}, {}, False, len(plan.outputs), why_not)
    # several tensors may have one key, as of a layer that the output has twice: each stays where it
    # is
    by_name: dict[str, tuple[RecordedTensor, StoredTensor, Found, bool]] = {}
    by_key: dict[str, tuple[RecordedTensor, StoredTensor, Found, bool]] = {}
    for weights in record.weights:
        place = os.path.join(path, weights.name)
        with suppress(CatalogError):
            header = reader_of(place).header(place)
            trusted = weights == sealed(weights.name, header.file)
            # its status changes with the names that runs give it, of which one that was stopped may
            # have left some
            file = replace(header.file, ctime_ns=0)
            for inside, tensor in header.tensors.items():
                name = prefix_of(os.path.dirname(weights.name)) + inside
                if name in record.tensors and record.tensors[name].key:
                    recorded = record.tensors[name]
                    by_name[name] = (recorded, tensor, Found(file, tensor.start), trusted)
                    by_key.setdefault(recorded.key, by_name[name])
    tensors = {}
    for index, wanted in enumerate(plan.tensors):
        for held in (by_name.get(wanted.name), by_key.get(wanted.key)):
            if held is None or held[0].key != wanted.key or not _same_tensor(held[1], wanted):
                continue
            if held[3] or held[0].checksum is not None:
                tensors[index] = Reused(held[2], held[0].checksum, held[0].non_finite, held[3])
                break
    same = _same_files(plan, tensors)
    in_place = all(os.path.relpath(file, path) == plan.outputs[k].name for k, file in same.items())
    changed = tuple([named(code) for code in changed_code(record.made_with, plan.made_by)])
    same_companions = in_place and _same_companions(path, plan, record)
    return Earlier(tensors, same, same_companions, len(plan.outputs), changed=changed)


def checked(earlier: Earlier, plan: Plan, cancel: threading.Event | None = None) -> Earlier:
    """What is left of an earlier output after comparing the checksums of tensors whose files are
    not as they were."""
    doubtful = [
        Stored(index, reused.found.file.path, reused.found.start, plan.tensors[index].nbytes, reused.checksum)
        for index, reused in earlier.tensors.items()
        if not reused.trusted and reused.checksum is not None
    ]
    if not doubtful:
        return earlier
    right = confirm(doubtful, plan.lanes, cancel)
    tensors = {k: t for k, t in earlier.tensors.items() if t.trusted or k in right}
    same = {
        file: path
        for file, path in earlier.same_files.items()
        if all(k in tensors for k, t in enumerate(plan.tensors) if t.file == file)
    }
    return Earlier(tensors, same, earlier.same_companions, earlier.outputs, earlier.why_not, earlier.changed)


def _same_tensor(stored: StoredTensor, wanted: OutputTensor) -> bool:
    return (stored.dtype, stored.shape, stored.nbytes) == (wanted.dtype, wanted.shape, wanted.nbytes)


def _same_files(plan: Plan, tensors: Mapping[int, Reused]) -> dict[int, str]:
    complete = dict.fromkeys(range(len(plan.outputs)), True)
    places: dict[int, set[str]] = {k: set() for k in complete}
    for index, wanted in enumerate(plan.tensors):
        reused = tensors.get(index)
        if reused is None or reused.found.start != wanted.start:
            complete[wanted.file] = False
        else:
            places[wanted.file].add(reused.found.file.path)
    same = {}
    for number, output in enumerate(plan.outputs):
        if complete[number] and len(places[number]) == 1 and _frames(next(iter(places[number])), output):
            same[number] = next(iter(places[number]))
    return same


def _frames(path: str, output: PlannedOutput) -> bool:
    """Whether the file has the output's size and fixed bytes."""
    try:
        with regular(path) as (descriptor, status):
            return status.st_size == output.size and all(
                os.pread(descriptor, len(fixed.data), fixed.start) == fixed.data for fixed in output.fixed
            )
    except OSError:
        return False


def _same_companions(path: str, plan: Plan, record: Record) -> bool:
    """Whether documents and companion files are as they would be written, and there are no other
    files than the plan's."""
    if record.files != files_of(plan):
        return False
    try:
        for document in plan.documents:
            if document.name == PROVENANCE:
                if json.loads(document.text) != record.base:
                    return False
            elif not holds(os.path.join(path, document.name), document.text.encode()):
                return False
        return all(filecmp.cmp(t.path, os.path.join(path, t.name), shallow=False) for t in plan.tagalongs)
    except OSError:
        return False


def as_done(earlier: Earlier) -> dict[int, Done]:
    """The tensors whose checksum is known, as a journal would list them."""
    return {k: Done(k, t.checksum, t.non_finite) for k, t in earlier.tensors.items() if t.checksum is not None}
