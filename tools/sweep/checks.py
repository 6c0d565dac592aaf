"""All checks, in the order of the columns of results.tsv."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from ..small_models import NotBuilt, Pair
from .frankenmerges import depth, kinds
from .lean import lean, lean_kinds
from .outcome import Outcome, Status, wrong
from .places import embed, head, layer, norm, stacks, ties
from .recipes import Refused
from .results import Result
from .subject import Subject, few, subject_of, told
from .wholes import linear, slerp

Check = Callable[[Subject], Mapping[str, Outcome]]

CHECKS: tuple[Check, ...] = (stacks, ties, linear, slerp, layer, embed, norm, head, depth, kinds, lean, lean_kinds)

COLUMNS: Mapping[str, str] = {
    "stacks": "`inspect` tells the depth of each main stack under a documented name",
    "ties": "`inspect` tells what is tied",
    "linear": "`* = linear(a, b)`: names, shapes, dtypes; values against float64",
    "config": "config.json of that output is the model's",
    "verify": "`mergec verify` finds nothing in it",
    "load": "transformers loads it with no key missing or left over, and finds the mean",
    "command": "the command line makes the same bytes (one pair in forty)",
    "slerp": "`* = slerp(a, b, t=0.5)`: names, shapes, dtypes; values against float64",
    "layer": "`layers[0] = b`, in each main stack: just the tensors of block 0",
    "embed": "`embed = b`: just the input embedding",
    "norm": "`norm = b`: just the norm beside the main stack",
    "head": "`head = b`: just the output head, which is untied where it was tied",
    "depth": "`stack(a.layers[0..1], a.layers[0..1])`: loads at that depth, right blocks, right logits",
    "kinds": "the same of the whole stack twice, and of all layers but the first",
    "lean": "inspect and linear alike under a config without what transformers completes",
    "lean kinds": "depth and kinds where kinds of layers follow from a rule, under a config with the rule alone",
}
"""What each column of the table is about. `linear` fills those up to `command`."""

_PARTS = {"linear": ("linear", "config", "verify", "load", "command"), "lean_kinds": ("lean kinds",)}


def checked(pair: Pair, folder: Path, checks: tuple[Check, ...] = CHECKS) -> Result:
    """Builds the model and runs the checks. The folder is made and removed."""
    try:
        return _checked(pair, folder, checks)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _checked(pair: Pair, folder: Path, checks: tuple[Check, ...]) -> Result:
    try:
        subject = subject_of(pair, folder)
    except NotBuilt as error:
        return Result(pair.kind, pair.head, not_built=str(error.args[0]))
    except Exception as error:
        return Result(pair.kind, pair.head, not_built=f"transformers can't save it: {told(error)}")
    found: dict[str, Outcome] = {}
    for check in checks:
        found |= _outcomes(check, subject)
    known = "?"
    if "stacks" in found:
        try:
            known = "names" if subject.seen["inferred"] else "table"
        except Refused:
            known = "refused"
    return Result(pair.kind, pair.head, known=known, outcomes=found)


def _outcomes(check: Check, subject: Subject) -> Mapping[str, Outcome]:
    """What a check finds; a refusal of the whole check is one of its first column."""
    columns = _PARTS.get(check.__name__, (check.__name__,))
    try:
        return check(subject)
    except Refused as error:
        return {columns[0]: Outcome(Status.REFUSED, str(error)[:300])}
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return {columns[0]: wrong(f"{told(error)} at {Path(at.filename).name}:{at.lineno}")}


def failures(result: Result) -> str:
    """What is not as it should be, in short."""
    if result.not_built:
        return f"not built: {result.not_built[:100]}"
    bad = {
        c: o
        for c, o in result.outcomes.items()
        if o.status not in (Status.PASS, Status.NONE, Status.PEER, Status.BARRED)
    }
    return few([f"{column} {outcome.status.value}" for column, outcome in bad.items()], 9) or "ok"
