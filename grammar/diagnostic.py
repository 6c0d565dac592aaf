"""Diagnostics as data: what is wrong, where, and how to mend it. Rendering is in `render.py`."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from .records import dataclass
from .source import Span


class Severity(enum.Enum):
    ERROR = "error"
    WARNING = "warning"


class Exit(enum.IntEnum):
    """Exit statuses of the command line."""

    DONE = 0
    RECIPE = 1
    USAGE = 2
    INPUT = 3
    RUN = 4
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Label:
    """A span and what is to be said about it; the text may be empty."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding.

    `message` is lower case without a final stop, names in backticks. The first label is the primary
    one; a finding about a file instead of the recipe has none and names the `file`. `help` holds mends.
    """

    code: str
    message: str
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    severity: Severity = Severity.ERROR
    file: str | None = None


class MergecError(Exception):
    """The one exception for everything that is the user's to mend.

    Carries at least one `Diagnostic` of severity error and the exit status that goes with them.
    """

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic], exit: Exit = Exit.RECIPE) -> None:
        self.diagnostics = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        self.exit = exit
        super().__init__("; ".join(f"{d.code}: {d.message}" for d in self.diagnostics))
