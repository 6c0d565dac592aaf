"""What stops a run is what is raised: not that the others were stopped for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.compiler.plan.plan import Plan
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.files.inputs import Inputs
from mergec.runtime.session.session import run_plan
from safetensors.numpy import save_file
from standin import stand_in

SECONDS = 20


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan for two devices, a tensor of several blocks each."""
    stand_in(monkeypatch)
    rng = np.random.default_rng(0)
    tensors = {f"w{k}.weight": rng.standard_normal((300, 500)).astype(np.float32) for k in range(2)}
    save_file(tensors, tmp_path / "a.safetensors")
    source = Source("<recipe>", f'let a = model("{tmp_path}/a.safetensors")\n"*" = 2*a\n')
    options = Options(device="cuda:0,cuda:1", lanes=1, block=1 << 14)
    return compile_recipe(source, LocalCatalog(), "0", options).plan


def device() -> int | None:
    """The number of the part whose thread this is."""
    name = threading.current_thread().name
    return int(name.rpartition("_")[2]) if name.startswith("mergec-device_") else None


class Quiet:
    def begins(self, plan: Plan, notices: Sequence[str]) -> None: ...

    def tensor(self, index: int) -> None: ...

    def moved(self, read: int, written: int) -> None: ...

    def live(self, host: int, device: int) -> None: ...


@pytest.mark.parametrize("first", [0, 1])
def test_a_failure_and_the_parts_that_stop_for_it(
    first: int, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Inputs.read_into
    failed = threading.Event()

    def failing(inputs: Inputs, file: int, start: int, view: memoryview) -> None:
        if device() == first:
            failed.set()
            raise OSError(5, "the disk is gone")
        # the other part is in the middle of its work, and finds at its next block that it is to
        # stop
        assert failed.wait(SECONDS)
        read(inputs, file, start, view)

    monkeypatch.setattr(Inputs, "read_into", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        run_plan(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_while_the_run_is_being_stopped(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody stops the run, a part has done so, and then the other one fails: that is news, and
    is told."""
    read = Inputs.read_into
    cancel, begun, never = threading.Event(), threading.Event(), threading.Event()

    def failing(inputs: Inputs, file: int, start: int, view: memoryview) -> None:
        if device() == 0:
            assert begun.wait(SECONDS)
            cancel.set()
            read(inputs, file, start, view)
            return
        begun.set()
        assert cancel.wait(SECONDS)
        # time for the first part to see it
        never.wait(0.3)
        raise OSError(5, "the disk is gone")

    monkeypatch.setattr(Inputs, "read_into", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        run_plan(plan, tmp_path / "out", progress=Quiet(), cancel=cancel)
