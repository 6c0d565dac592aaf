"""Python's cyclic garbage collector, held off where much is made and nothing of it is a cycle."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """While headers become objects and these a plan, the collector would look through millions that
    all stay alive, again and again: that takes as long as the work itself.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def collector_spared() -> Iterator[None]:
    """Within it, the collector of cyclic garbage does not look at what there is by now, which stays
    anyway: a plan of many tensors is a million objects, and to go through them again and again took
    longer than to merge small ones."""
    ours = gc.get_freeze_count() == 0
    if ours:
        gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()
