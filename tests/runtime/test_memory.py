"""The meter's marks and its refusals."""

from __future__ import annotations

import pytest
from mergec.runtime.machine.memory import Meter


def test_marks_are_of_what_lives_at_once() -> None:
    meter = Meter()
    meter.allocate("a", 10)
    meter.allocate("b", 5)
    meter.allocate("c", 100, device=True)
    meter.free("a")
    meter.allocate("d", 9)
    assert (meter.host, meter.device) == (14, 100)
    assert (meter.peak_host, meter.peak_device) == (15, 100)
    for name in "bcd":
        meter.free(name)
    meter.close()
    assert (meter.host, meter.device) == (0, 0)


def test_misuse_is_refused() -> None:
    meter = Meter()
    meter.allocate("a", 10)
    with pytest.raises(RuntimeError, match="`a` is allocated twice"):
        meter.allocate("a", 10)
    with pytest.raises(RuntimeError, match="never freed: `a` \\(10 bytes\\)"):
        meter.close()
    meter.free("a")
    with pytest.raises(RuntimeError, match="`a` is freed but not allocated"):
        meter.free("a")
