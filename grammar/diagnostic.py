"""Diagnostics as data: what is wrong, where, and how to fix it. Rendering is in `render.py`."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterable, Iterator

from .error_codes import Exit as Exit
from .error_codes import exit_of
from .records import dataclass
from .source import Span


class Severity(enum.Enum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Label:
    """A span and what is to be said about it; the text may be empty."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding.

    `message` is lower case without a final stop, names in backticks. The first label is the primary
    one; a finding about a file instead of the recipe has none and names the `file`. `help` holds
    fixes.
    """

    code: str
    message: str
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    severity: Severity = Severity.ERROR
    file: str | None = None


class MergecError(Exception):
    """The one exception for everything that is the user's to fix.

    Carries at least one `Diagnostic` of severity error, and `exit` where what was asked for has a
    status of its own.
    """

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic], exit: Exit | None = None) -> None:
        self.diagnostics = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        self._exit = exit
        super().__init__("; ".join(f"{d.code}: {d.message}" for d in self.diagnostics))

    def retold(self, diagnostics: Iterable[Diagnostic]) -> MergecError:
        """The same failure in other words."""
        return MergecError(diagnostics, self._exit)

    @property
    def exit(self) -> Exit:
        """The exit status that goes with them: a wrong recipe outweighs all else that was found."""
        if self._exit is not None:
            return self._exit
        errors = (d for d in self.diagnostics if d.severity is Severity.ERROR)
        return min((exit_of(d.code, d.file) for d in errors), default=Exit.RECIPE)


def finding(
    code: str,
    message: str,
    where: Span | Iterable[Label] | None = None,
    label: str = "",
    *,
    notes: str | Iterable[str] = (),
    help: str | Iterable[str] = (),
    file: str | None = None,
    severity: Severity | None = None,
) -> Diagnostic:
    """A diagnostic about one place, with a `label`, or about several, each with its own. W in a
    code makes it a warning, unless the severity is given."""
    usual = Severity.WARNING if code.startswith("W") else Severity.ERROR
    labels = () if where is None else (Label(where, label),) if isinstance(where, Span) else tuple(where)
    return Diagnostic(code, message, labels, _texts(notes), _texts(help), severity or usual, file)


def error(
    code: str,
    message: str,
    where: Span | Iterable[Label] | None = None,
    label: str = "",
    *,
    notes: str | Iterable[str] = (),
    help: str | Iterable[str] = (),
    file: str | None = None,
    exit: Exit | None = None,
) -> MergecError:
    """The exception for one finding, as `finding` makes it: what nearly everything raises."""
    return MergecError(finding(code, message, where, label, notes=notes, help=help, file=file), exit)


@contextlib.contextmanager
def collecting(found: list[Diagnostic]) -> Iterator[None]:
    """Adds what is raised inside to `found`, and goes on behind: what else is wrong is said at once
    too."""
    try:
        yield
    except MergecError as error:
        found.extend(error.diagnostics)


def _texts(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
