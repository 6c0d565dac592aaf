"""Tensors of an output made again from the inputs, and compared with what is stored, byte by byte.

The plan is cut down to them (`compiler/plan/prune.py`) and run as any other; but its writes go
nowhere: each block is compared with the bytes that it would replace. So it takes no space, and
there is nothing to clean up.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Mapping, Sequence

import numpy

from ...compiler.plan.owners import Owners
from ...compiler.plan.plan import Extent, OutputTensor, Plan
from ...compiler.plan.prune import prune
from ...grammar.diagnostic import Diagnostic, MergecError
from ..catalog.extension_code import named
from ..execute.executor import execute
from ..files.descriptors import Descriptors, room
from ..files.faults import reason, show
from ..files.inputs import Inputs
from ..resume.environment import changed_code, difference
from ..resume.record import Record
from .contents import OutputContents, Place
from .recipe import Recompiled
from .report import Check, Verdict, check

_PIECE = 1 << 20


def rerun(
    made: Recompiled,
    contents: OutputContents,
    record: Record,
    count: int | None,
    seed: int,
    cancel: threading.Event | None = None,
) -> Check:
    """Makes `count` tensors again (None: all), drawn by `seed`, and compares their bytes. Raises
    Cancelled."""
    plan = made.plan
    there = [k for k, t in enumerate(plan.tensors) if t.name in contents.tensors and _same_tensor(t, contents)]
    drawn = there if count is None else sorted(random.Random(seed).sample(there, min(count, len(there))))
    chosen = frozenset(drawn)
    work = prune(plan, set(range(len(plan.tensors))) - chosen)
    places = {k: contents.tensors[plan.tensors[k].name] for k in drawn}
    compared = Compared(plan.tensors, places, plan.lanes)
    try:
        with Inputs(work.inputs) as inputs, compared:
            execute(work, inputs, compared, None, cancel)
            inputs.check()
    except MergecError as error:
        said = error.diagnostics[0]
        return Check("rerun", Verdict.UNKNOWN, f"stopped by {said.code}: {said.message}")
    nbytes = sum(plan.tensors[k].nbytes for k in drawn)
    detail = f"{len(drawn):,} of {len(plan.tensors):,} tensors made again, {nbytes:,} bytes"
    other = difference(record.made_with, plan) or _other_code(record, plan)
    if compared.wrong and other is not None:
        names = ", ".join(f"`{show(plan.tensors[k].name)}`" for k in sorted(compared.wrong))
        return Check("rerun", Verdict.UNKNOWN, f"{detail}; other bytes in {names}, but {other}")
    since = ", ".join(f"`{show(name)}`" for name in made.touched)
    notes = (f"written to or copied since the output was made: {since}",) if since else ()
    wrong = sorted(compared.wrong)
    return check("rerun", detail, [_finding(plan.tensors[k], places[k], compared, k, notes) for k in wrong])


def _other_code(record: Record, plan: Plan) -> str | None:
    changed = changed_code(record.made_with, plan.made_by)
    return f"{named(changed[0])} has changed since" if changed else None


def _same_tensor(tensor: OutputTensor, contents: OutputContents) -> bool:
    stored = contents.tensors[tensor.name].tensor
    return (stored.dtype, stored.shape) == (tensor.dtype, tensor.shape)


def _finding(tensor: OutputTensor, place: Place, compared: Compared, index: int, notes: tuple[str, ...]) -> Diagnostic:
    message = f"tensor `{show(tensor.name)}` is not what the recipe makes of the inputs"
    note = compared.faults.get(index, f"the first difference is in byte {compared.wrong[index]} of the tensor")
    return Diagnostic("E0658", message, notes=(note, *notes), file=place.path)


class Compared:
    """Implements `Writes` over the tensors at `places`, by index: compares what would be written.

    `wrong`: the first byte that differs, for each tensor that has one.
    """

    def __init__(self, tensors: Sequence[OutputTensor], places: Mapping[int, Place], lanes: int) -> None:
        self._owners = Owners(tensors)
        self._tensors, self._places = tensors, places
        self._paths = tuple(dict.fromkeys(p.path for p in places.values()))
        self._file = {path: number for number, path in enumerate(self._paths)}
        self._descriptors = Descriptors(self._open, room(lanes))
        self._lock = threading.Lock()
        self.wrong: dict[int, int] = {}
        self.faults: dict[int, str] = {}

    def __enter__(self) -> Compared:
        return self

    def __exit__(self, *_: object) -> None:
        self._descriptors.close()

    def write(self, file: int, start: int, data: memoryview) -> None:
        """Compares `data` with the bytes of the tensors that bytes of output `file` from `start` on
        belong to."""
        wanted = data.cast("B")
        for index in self._owners.within(file, start, wanted.nbytes):
            tensor = self._tensors[index]
            first = max(tensor.start - start, 0)
            self._compare(index, start + first - tensor.start, wanted[first : tensor.start + tensor.nbytes - start])

    def _compare(self, index: int, first: int, wanted: memoryview) -> None:
        """Compares bytes with those of a tensor, from its byte `first` on."""
        place = self._places[index]
        try:
            with self._descriptors.borrow(self._file[place.path]) as descriptor:
                for done in range(0, wanted.nbytes, _PIECE):
                    piece = wanted[done : done + _PIECE]
                    stored = os.pread(descriptor, piece.nbytes, place.tensor.start + first + done)
                    differs = _first_difference(stored, piece)
                    if differs is not None:
                        self._found(index, first + done + differs)
                        return
        except OSError as error:
            self._found(index, first)
            with self._lock:
                self.faults[index] = f"its file can't be read: {reason(error)}"

    def copy(self, inputs: Inputs, extent: Extent, file: int, start: int) -> None:
        """Compares a range of an input with the bytes at byte `start` of output `file`."""
        buffer = memoryview(bytearray(min(_PIECE, extent.nbytes)))
        for done in range(0, extent.nbytes, _PIECE):
            piece = buffer[: extent.nbytes - done]
            inputs.read_into(extent.file, extent.start + done, piece)
            self.write(file, start + done, piece)

    def _open(self, number: int) -> int:
        return os.open(self._paths[number], os.O_RDONLY | os.O_CLOEXEC)

    def _found(self, index: int, byte: int) -> None:
        with self._lock:
            self.wrong[index] = min(byte, self.wrong.get(index, byte))


def _first_difference(stored: bytes, wanted: memoryview) -> int | None:
    """The first byte that differs; a file that ends early differs at its end."""
    one, two = numpy.frombuffer(stored, "u1"), numpy.frombuffer(wanted, "u1")
    size = min(len(one), len(two))
    if numpy.array_equal(one[:size], two[:size]):
        return None if size == len(two) else size
    return int(numpy.flatnonzero(one[:size] != two[:size])[0])
