"""How a check ended."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple


class Status(Enum):
    """The texts stand in results.tsv."""

    PASS = "pass"
    NAMED = "named"  # right, under another name than the documentation's
    REFUSED = "refused"  # an error with a code, and no output
    WRONG = "wrong"
    BARRED = "barred"  # an error with a code, rightly: transformers has no config for what was asked
    PEER = "peer"  # transformers itself can't do it, or not twice alike
    NONE = "-"  # there is nothing to check


class Outcome(NamedTuple):
    status: Status
    why: str = ""


PASS = Outcome(Status.PASS)


def none(why: str) -> Outcome:
    return Outcome(Status.NONE, why)


def wrong(why: str) -> Outcome:
    return Outcome(Status.WRONG, why)


def verdict(problem: str | None) -> Outcome:
    return wrong(problem) if problem else PASS


_WORST = (Status.NONE, Status.PEER, Status.BARRED, Status.PASS, Status.NAMED, Status.REFUSED, Status.WRONG)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """What a check of several parts comes to; one that is barred is no fault of the others."""
    return max(outcomes, key=lambda outcome: _WORST.index(outcome.status))
