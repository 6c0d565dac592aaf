"""The keys of maps: which one counts for a tensor, by one rule for maps of numbers and of regions;
and plain maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...grammar.diagnostic import Label, MergecError, error
from ...grammar.source import Span
from ..family.place import Path
from ..family.space import Space

Entry = tuple[Path | None, str, Any]
"""A key's path (None for `_`), its text, and its value."""


def counting(entries: Sequence[Entry], name: str, space: Space) -> Entry | None:
    """The entry whose key covers the tensor; None where no key does.

    Of several keys the one that covers fewest tensors counts, of equals the first. `_` covers more
    than any other. Raises MergecError (E0301 to E0304) for a key that is no place of `space`.
    """
    fewest, found = len(space.names) + 2, None
    for entry in entries:
        path = entry[0]
        covered = space.names if path is None else space.part(path)
        size = len(covered) + (path is None)
        if size < fewest and name in covered:
            fewest, found = size, entry
    return found


def given_twice(key: str, again: Span | None, first: Span | None) -> MergecError:
    """The error (E0205) for a name that comes twice."""
    spans = ((again, "again here"), (first, "first here"))
    return error("E0205", f"`{key}` is given twice", [Label(span, text) for span, text in spans if span is not None])


def plain(entries: Sequence[Entry]) -> dict[str, Any]:
    """A map whose keys are words, as in `output(config={…})`. Raises MergecError (E0205) for a key
    that comes twice."""
    out: dict[str, Any] = {}
    for path, key, value in entries:
        if key in out:
            first = next(p for p, k, _ in entries if k == key)
            raise given_twice(key, path.span if path else None, first.span if first else None)
        out[key] = value
    return out
