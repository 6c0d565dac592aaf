"""What a verification found: one check after the other, each with its findings."""

from __future__ import annotations

import enum

from ...grammar.diagnostic import Diagnostic
from ...grammar.records import dataclass


class Verdict(enum.Enum):
    """How a check ended. `UNKNOWN`: something that it needs is not available."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "not checked"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, how it ended, a line about what was looked at, and errors that name file
    and tensor."""

    name: str
    verdict: Verdict
    detail: str
    findings: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """All checks of one output, in order. `path` is absolute."""

    path: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether all that could be checked is right."""
        return all(check.verdict is not Verdict.FAILED for check in self.checks)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """The findings of all checks."""
        return tuple(finding for check in self.checks for finding in check.findings)


def check(name: str, detail: str, findings: list[Diagnostic], otherwise: str | None = None) -> Check:
    """A check that failed where it has findings. `otherwise` says what it could not look at, where
    it has none."""
    if findings:
        return Check(name, Verdict.FAILED, detail, tuple(findings))
    if otherwise is not None:
        return Check(name, Verdict.UNKNOWN, otherwise)
    return Check(name, Verdict.OK, detail)
