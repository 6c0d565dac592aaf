"""Diagnostics on standard error: for people, in colour or not, or for editors."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Sequence

from ...grammar.diagnostic import Diagnostic
from ...grammar.records import dataclass
from ...grammar.render import render, to_json
from .streams import tell


@dataclass(frozen=True, slots=True)
class Reporter:
    """`--error-format` and `--color`, which every command has. JSON is one object per line."""

    as_json: bool = False
    color: str = "auto"

    def show(self, diagnostics: Iterable[Diagnostic]) -> None:
        found = list(diagnostics)
        if found:
            tell((to_json(found) if self.as_json else render(found, color=self._colored())).rstrip("\n"))

    def _colored(self) -> bool:
        if self.color == "auto":
            return sys.stderr.isatty() and "NO_COLOR" not in os.environ
        return self.color == "always"


def asked_for(words: Sequence[str]) -> Reporter:
    """The reporter for a command line that may make no sense, which is what has to be reported
    then."""

    def asks(option: str, value: str) -> bool:
        return f"{option}={value}" in words or (option, value) in itertools.pairwise(words)

    color = next((value for value in ("always", "never") if asks("--color", value)), "auto")
    return Reporter(asks("--error-format", "json"), color)
