"""Which examples hypothesis draws: the same ones in every run, or, where it is asked for, many that
are new."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXPLORE = int(os.environ.get("MERGEC_TEST_EXPLORE", "0"))
"""How many times as many examples are drawn, at random; 0: the same ones as ever, so that a commit
has one answer."""

# how long an example takes says what else the machine does, and nothing about the example
UNTIMED = HealthCheck.too_slow


def load() -> None:
    """Makes it hypothesis' default; called before the first test is imported."""
    settings.register_profile(
        "same", derandomize=True, database=None, deadline=None, print_blob=True, suppress_health_check=[UNTIMED]
    )
    settings.register_profile(
        "explore", max_examples=100 * max(EXPLORE, 1), deadline=None, print_blob=True, suppress_health_check=[UNTIMED]
    )
    settings.load_profile("explore" if EXPLORE else "same")


def examples(count: int, *unchecked: HealthCheck) -> settings:
    """A decorator: `count` examples, or so many times more; without the health checks given."""
    return settings(max_examples=count * max(EXPLORE, 1), suppress_health_check=[UNTIMED, *unchecked])
