"""results.tsv: a line for each pair of type and head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .outcome import Outcome, Status

PATH = Path(__file__).with_name("results.tsv")

_FIRST = ("type", "head", "known by")
_LAST = "why"


@dataclass(frozen=True)
class Result:
    """`known`: whether mergec takes the type from a table or from the names of tensors. `not_built`:
    why there is no model to check. `outcomes` by the name of the column."""

    kind: str
    head: str
    known: str = ""
    not_built: str = ""
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)


def heading(columns: Sequence[str]) -> str:
    return "\t".join((*_FIRST, *columns, _LAST))


def line(result: Result, columns: Sequence[str]) -> str:
    """The statuses, and last the reasons of all that is neither right nor without object."""
    cells = [result.outcomes[c].status.value if c in result.outcomes else "" for c in columns]
    said = {c: o.why for c, o in result.outcomes.items() if o.status not in (Status.PASS, Status.NONE)}
    why = "not built: " + result.not_built if result.not_built else " ¶ ".join(f"{c}: {w}" for c, w in said.items())
    return "\t".join((result.kind, result.head, result.known, *cells, _plain(why)))


def read(text: str) -> list[Result]:
    """What `line` wrote. Raises ValueError where it is not that."""
    first, *rest = text.splitlines()
    columns = first.split("\t")[len(_FIRST) : -1]
    return [_result(each.split("\t"), columns) for each in rest]


def _result(cells: Sequence[str], columns: Sequence[str]) -> Result:
    kind, head, known, *statuses, why = cells
    if why.startswith("not built: "):
        return Result(kind, head, not_built=why.removeprefix("not built: "))
    reasons = dict(each.split(": ", 1) for each in why.split(" ¶ ") if ": " in each)
    outcomes = {
        column: Outcome(Status(status), reasons.get(column, ""))
        for column, status in zip(columns, statuses, strict=True)
        if status
    }
    return Result(kind, head, known, outcomes=outcomes)


def write(path: Path, results: Iterable[Result], columns: Sequence[str]) -> None:
    """In the order of types and heads."""
    ordered = sorted(results, key=lambda result: (result.kind, result.head))
    text = "".join(f"{each}\n" for each in (heading(columns), *(line(r, columns) for r in ordered)))
    path.write_text(text, "utf-8")


def _plain(text: str) -> str:
    """On one line, without colours, and without the folder where it happened."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"/[^ `'\"]*/(?=(a|b|merged)\b)", "", text)
    return " ".join(text.split())
