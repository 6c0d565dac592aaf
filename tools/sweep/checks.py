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
    column = check.__name__.replace("_", " ")
    try:
        return check(subject)
    except Refused as error:
        return {column: Outcome(Status.REFUSED, str(error)[:300])}
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return {column: wrong(f"{told(error)} at {Path(at.filename).name}:{at.lineno}")}


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
