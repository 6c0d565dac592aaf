"""A device for tests: an accelerator in the host's memory."""

from __future__ import annotations

import pytest
from mergec.runtime.machine import accelerator


class StandIn(accelerator.Accelerator):
    """Any accelerator, but on the CPU."""

    def __init__(self, name: str) -> None:
        del name
        super().__init__("cpu")


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, accelerators are stand-ins."""
    monkeypatch.setattr(accelerator, "Accelerator", StandIn)
