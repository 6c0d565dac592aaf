"""Verifies an output: the checks, one after the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Literal

from ...compiler.checkpoint.catalog import CatalogError
from ...compiler.emit.card import PROVENANCE
from ...compiler.evaluate.extensions import Primitive
from ...grammar.diagnostic import Diagnostic, error
from ..catalog.extensions import Primitives
from ..catalog.local import LocalCatalog
from ..files.faults import show
from ..machine.hardware import choose_device, usable_cores
from ..resume.record import Record, read_record
from .contents import (
    OutputContents,
    as_diagnostic,
    check_config,
    check_index,
    check_tensors,
    read_contents,
)
from .data import check_checksums, check_non_finite, read_data
from .recipe import check_companions, recompile
from .report import Check, Verdict, Verification
from .rerun import rerun as run_again

SAMPLE = 8
"""Tensors that are made again where no number is given."""

Sample = int | Literal["all"] | None


def verify(
    path: str | os.PathLike[str],
    *,
    rerun: Sample = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    primitives: Iterable[Primitive] = (),
    cancel: threading.Event | None = None,
    allow_pickle: bool = False,
) -> Verification:
    """Checks an output of mergec's against its own record, its config and, where they are
    available, its inputs.

    Reads every byte of the output once. `rerun` makes that many tensors again from the inputs
    (`"all"`: every one), drawn by `seed`, and compares their bytes. Relative paths of the recipe
    begin in `folder`; by default they are looked for in the working folder and next to the output.
    `primitives` and `allow_pickle` as for `mergec.compile`. Writes nothing.

    What is wrong with the output is in the result. Raises MergecError (E0401) where there is no
    output, `Cancelled` where `cancel` was set.
    """
    where = os.path.abspath(os.fspath(path))
    if not os.path.exists(where):
        raise error("E0401", f"no output at `{show(where)}`", file=where)
    record, said = _record(where) if os.path.isdir(where) else (None, None)
    copied = record.files - {weights.name for weights in record.weights} if record is not None else frozenset()
    contents, headers = read_contents(where, copied)
    lanes = usable_cores()
    if said is None:
        single = Check("record", Verdict.UNKNOWN, f"an output that is one file has no `{PROVENANCE}`")
        return Verification(where, (headers, single, check_non_finite(contents, None, read_data(contents, lanes))))
    checks = [headers, said]
    if record is not None:
        checks.append(check_tensors(where, contents, record))
    index = check_index(where, contents)
    checks += [index] if index is not None else []
    checks.append(check_config(where, contents, record))
    seen = read_data(contents, lanes, cancel)
    if record is not None:
        checks.append(check_checksums(contents, record, seen))
    checks.append(check_non_finite(contents, record, seen))
    if record is not None:
        folders = [os.getcwd(), os.path.dirname(where)] if folder is None else [os.path.abspath(os.fspath(folder))]
        disk = LocalCatalog(allow_pickle=allow_pickle)
        checks += _from_inputs(
            where, contents, record, folders, disk, Primitives(primitives), lanes, rerun, seed, cancel
        )
    return Verification(where, tuple(checks))


def _record(path: str) -> tuple[Record | None, Check]:
    """The record, where it is sound, and the check of that."""
    place = os.path.join(path, PROVENANCE)
    try:
        record = read_record(path)
    except CatalogError as error:
        there = os.path.lexists(place)
        found = as_diagnostic(error) if there else Diagnostic("E0650", f"`{PROVENANCE}` is missing", file=place)
        return None, Check("record", Verdict.FAILED, "nothing says what was written", (found,))
    made = show(str(record.made_with.get("mergec", "an unknown version")))
    return record, Check("record", Verdict.OK, f"made with mergec {made}")


def _from_inputs(
    path: str,
    contents: OutputContents,
    record: Record,
    folders: list[str],
    disk: LocalCatalog,
    primitives: Primitives,
    lanes: int,
    rerun: Sample,
    seed: int,
    cancel: threading.Event | None,
) -> list[Check]:
    """What needs the inputs: that they are those recorded, the recipe's keys, the companion files,
    the rerun."""
    try:
        device = choose_device({"cuda": "cuda", "mps": "mps"}.get(str(record.made_with.get("device")), "cpu"))
        place = os.path.join(path, PROVENANCE)
        made, checks = recompile(record, folders, disk, primitives, lanes, device, contents.format, place)
    except RecursionError:
        return [Check("recipe", Verdict.UNKNOWN, "it is nested too deeply")]
    if made is None:
        unknown = Check("rerun", Verdict.UNKNOWN, "needs the inputs and the recipe")
        return checks + ([unknown] if rerun is not None else [])
    checks.append(check_companions(path, made))
    if rerun is not None:
        count = None if rerun == "all" else max(0, rerun)
        checks.append(run_again(made, contents, record, count, seed, cancel))
    return checks
