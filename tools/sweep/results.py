"""results.tsv: a line for each pair of type and head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .columns import COLUMNS
from .outcome import Outcome, Status

PATH = Path(__file__).with_name("results.tsv")

_FIRST = ("type", "head", "known by")
_LAST = "why"
_VERSION = "# transformers "
_NOT_BUILT = "not built: "
_BETWEEN = " ¶ "


@dataclass(frozen=True)
class Result:
    """`known`: whether mergec takes the type from a table or from the names of tensors.
    `not_built`: why there is no model to check. `outcomes` by the name of the column."""

    kind: str
    head: str
    known: str = ""
    not_built: str = ""
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)


def read(text: str) -> tuple[str, list[Result]]:
    """The version of transformers, and what was found with it."""
    first, heads, *rest = text.splitlines()
    columns = heads.split("\t")[len(_FIRST) : -1]
    return first.removeprefix(_VERSION), [_result(each.split("\t"), columns) for each in rest]


def _result(cells: Sequence[str], columns: Sequence[str]) -> Result:
    kind, head, known, *statuses, why = cells
    if why.startswith(_NOT_BUILT):
        return Result(kind, head, not_built=why.removeprefix(_NOT_BUILT))
    reasons = dict(each.split(": ", 1) for each in why.split(_BETWEEN) if ": " in each)
    outcomes = {
        column: Outcome(Status(status), reasons.get(column, ""))
        for column, status in zip(columns, statuses, strict=True)
        if status
    }
    return Result(kind, head, known, outcomes=outcomes)


def write(path: Path, results: Iterable[Result], version: str) -> None:
    """In the order of types and heads."""
    ordered = sorted(results, key=lambda result: (result.kind, result.head))
    lines = [_VERSION + version, "\t".join((*_FIRST, *COLUMNS, _LAST)), *map(_line, ordered)]
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def _line(result: Result) -> str:
    """The statuses, and last the reasons of all that is neither right nor without object."""
    cells = [result.outcomes[c].status.value if c in result.outcomes else "" for c in COLUMNS]
    said = {c: o.why for c, o in result.outcomes.items() if o.status not in (Status.PASS, Status.NONE)}
    why = _NOT_BUILT + result.not_built if result.not_built else _BETWEEN.join(f"{c}: {w}" for c, w in said.items())
    return "\t".join((result.kind, result.head, result.known, *cells, _plain(why)))


def _plain(text: str) -> str:
    """On one line, without colours, and without the folder where it happened."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"/[^ `'\"]*/(?=(a|b|merged)\b)", "", text)
    return " ".join(text.split())
