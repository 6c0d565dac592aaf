"""docs/families.md: what results.tsv says, for readers."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from .columns import COLUMNS
from .outcome import Status
from .results import Result

SIGNS = {
    Status.PASS: "✓",
    Status.NAMED: "≈",
    Status.REFUSED: "E",
    Status.WRONG: "✗",
    Status.BARRED: "e",
    Status.PEER: "t",
    Status.NONE: "",
}

MEANINGS = {
    Status.PASS: "right",
    Status.NAMED: "right, under another name than the documented one",
    Status.REFUSED: "refused, with an error's code, though transformers could have it",
    Status.WRONG: "wrong",
    Status.BARRED: "refused, with an error's code, and rightly: transformers has no config for what was asked",
    Status.PEER: "transformers itself does not do it, or does not load what it saved",
    Status.NONE: "nothing to check",
}

HEAD = """# Model types

Made from `tools/sweep/results.tsv`; `make sweep` checks again. Every model type of transformers
{version} is built small with every head that it has (`Model`: none), with random weights, and
merged with a second one. What is right comes from transformers alone: from what it saves, from
what it loads, and from the logits of models that are assembled by hand.

Families with tables of their own, and what their places are: [language.md](language.md). The codes
of errors: [errors.md](errors.md)."""


def page(version: str, results: Sequence[Result]) -> str:
    """The whole page, as markdown."""
    built = [result for result in results if not result.not_built]
    parts = [
        HEAD.format(version=version),
        _counts(results, built),
        "## What is checked\n",
        _table(("column", "what"), [(f"`{column}`", what) for column, what in COLUMNS.items()]),
        "",
        _table(("sign", "how it ended"), [(SIGNS[s] or "(blank)", MEANINGS[s]) for s in SIGNS]),
        "",
        "## Refused\n",
        _reasons(built, (Status.REFUSED, Status.BARRED)) or "Nothing.",
        "## Wrong\n",
        _reasons(built, (Status.WRONG, Status.NAMED)) or "Nothing is known to be.\n",
        "## Not built\n",
        _not_built(results),
        "## All\n",
        _all(built),
    ]
    return "\n".join(part.rstrip("\n") if part == parts[-1] else part for part in parts) + "\n"


def _counts(results: Sequence[Result], built: Sequence[Result]) -> str:
    kinds, clean = {r.kind for r in built}, [r for r in built if _clean(r)]
    unclean = {r.kind for r in built if not _clean(r)}
    lines = [
        "",
        f"Of {len(results)} pairs of type and head, {len(built)} were built, of {len(kinds)} types. In "
        f"{len(clean)}, and {len(kinds - unclean)} types with all their heads, all is right, or refused rightly.",
        "",
    ]
    text = "\n".join(_wrapped(line) for line in lines)
    shown = [status for status in SIGNS if status is not Status.NONE]
    rows = []
    for column in COLUMNS:
        found = Counter(r.outcomes[column].status for r in built if column in r.outcomes)
        asked = sum(found.values()) - found[Status.NONE]
        rows.append((f"`{column}`", asked, *(found[status] or "" for status in shown)))
    heads = ("check", "asked of", *(SIGNS[status] for status in shown))
    return f"{text}\n{_table(heads, rows)}\n"


def _clean(result: Result) -> bool:
    return all(o.status not in (Status.WRONG, Status.REFUSED, Status.NAMED) for o in result.outcomes.values())


def _reasons(built: Iterable[Result], statuses: tuple[Status, ...]) -> str:
    """For each check and reason the types. Names within a reason differ from type to type."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for result in built:
        for column, outcome in result.outcomes.items():
            if outcome.status in statuses:
                found[column, SIGNS[outcome.status], _general(outcome.why)].append(result.kind)
    order = {column: at for at, column in enumerate(COLUMNS)}
    rows = [
        (f"`{column}`", sign, reason, ", ".join(sorted(set(kinds))))
        for (column, sign, reason), kinds in sorted(found.items(), key=lambda each: (order[each[0][0]], each[0][1:]))
    ]
    return _table(("check", "", "reason", "types"), rows) + "\n" if rows else ""


def _general(why: str) -> str:
    """A reason without what is of one model alone."""
    code = re.search(r"\b([EW]\d{4}): ([^\n]*)", why)
    text = code[0] if code else re.split(r"[:;{(]", re.sub(r"^\[[0-9, ]*\]: ", "", why))[0]
    text = re.sub(r"`[^`]*[.\d_][^`]*`", "`…`", text)
    text = re.sub(r"\[[0-9, ]*\]", "[…]", text)
    return re.sub(r"\b\d+\b", "N", re.sub(r"(?<=[ ])[\w]+(\.[\w]+)+", "…", text))[:120].strip()


def _not_built(results: Iterable[Result]) -> str:
    found: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if result.not_built:
            needs = re.search(r"requires the (\w+) library", result.not_built)
            reason = f"needs {needs[1]}" if needs else result.not_built[:100]
            found[reason].append(f"{result.kind} ({result.head})")
    return _table(("why", "types"), [(why, ", ".join(names)) for why, names in sorted(found.items())]) + "\n"


def _all(built: Iterable[Result]) -> str:
    rows = [
        (result.kind, result.head, result.known, *(_sign(result, column) for column in COLUMNS)) for result in built
    ]
    return _table(("type", "head", "known by", *COLUMNS), rows)


def _sign(result: Result, column: str) -> str:
    return SIGNS[result.outcomes[column].status] if column in result.outcomes else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _wrapped(text: str) -> str:
    lines: list[str] = []
    line = ""
    for word in text.split():
        if len(line) + len(word) >= 100:
            lines, line = [*lines, line], ""
        line = f"{line} {word}".lstrip()
    return "\n".join([*lines, line])
