"""Plans for several accelerators, carried out on stand-ins: each has its part; the bytes are those
of one device."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from draft_plans import Seen
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.compiler.plan.plan import Plan
from mergec.compiler.plan.split import split
from mergec.grammar.diagnostic import MergecError
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.execute.executor import Cancelled
from mergec.runtime.files.inputs import Inputs
from mergec.runtime.machine import accelerator
from mergec.runtime.machine.hardware import choose_device
from mergec.runtime.session.session import run_plan
from safetensors.numpy import save_file
from standin import StandIn, stand_in

RECIPES = {
    "linear": "linear(a, b, weight=[0.6, 0.4])",
    "ties": "ties(a, b, density=0.4)",
    "whole model": 'ties(a, b, density=0.4, scope="model")',
    "dare": "dare_ties(a, b, density=0.5)",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("base", "a", "b"):
        tensors = {f"w{k}.weight": rng.standard_normal((300 + 40 * k, 500)).astype(np.float32) for k in range(6)}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return tmp_path


def plan_of(folder: Path, value: str, device: str) -> Plan:
    lets = "\n".join(f'let {name} = model("{folder / name}.safetensors")' for name in ("base", "a", "b"))
    source = Source("<recipe>", f'{lets}\n"*" = {value}\n')
    return compile_recipe(source, LocalCatalog(), "0", Options(device=device, lanes=2, block=1 << 16)).plan


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("count", [2, 3, 9])
def test_the_bytes_of_one_device(folder: Path, count: int, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[str, int] = {}

    class Named(StandIn):
        def __init__(self, name: str) -> None:
            used[name] = used.get(name, 0) + 1
            super().__init__(name)

    monkeypatch.setattr(accelerator, "Accelerator", Named)
    one = plan_of(folder, RECIPES[method], "cuda:0")
    run_plan(one, folder / "one")
    used.clear()
    plan = plan_of(folder, RECIPES[method], ",".join(f"cuda:{k}" for k in range(count)))
    parts = split(plan)
    # six tensors are work for six devices at most
    assert [part.device for part in parts] == [f"cuda:{k}" for k in range(min(count, 6))]
    outcome = run_plan(plan, folder / "several").outcome
    assert used == {part.device: 1 for part in parts}
    assert (folder / "several/model.safetensors").read_bytes() == (folder / "one/model.safetensors").read_bytes()
    assert outcome.bytes_written == one.writes
    assert outcome.peak_device == max(part.peak_device for part in parts) <= plan.peak_device
    assert outcome.peak_host <= sum(part.peak_host for part in parts) <= plan.peak_host


def test_work_is_shared_evenly(folder: Path) -> None:
    parts = split(plan_of(folder, RECIPES["linear"], "cuda:0,cuda:1"))
    moved = [part.reads + part.writes for part in parts]
    assert min(moved) / max(moved) > 0.85
    assert sum(part.writes for part in parts) == plan_of(folder, RECIPES["linear"], "cuda:0").writes


def test_a_plan_for_one_device_is_left_alone(folder: Path) -> None:
    plan = plan_of(folder, RECIPES["ties"], "cuda:0")
    assert split(plan) == (plan,)


def test_one_part_fails_and_all_stop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    plan = plan_of(folder, RECIPES["linear"], "cuda:0,cuda:1")
    read = Inputs.read_into

    def failing(inputs: Inputs, file: int, start: int, view: memoryview) -> None:
        if threading.current_thread().name.startswith("mergec-device_1"):
            raise OSError(5, "the disk is gone")
        read(inputs, file, start, view)

    monkeypatch.setattr(Inputs, "read_into", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        run_plan(plan, folder / "out")
    assert not (folder / "out").exists()
    assert not [t for t in threading.enumerate() if t.name.startswith(("mergec-lane", "mergec-device"))]


def test_a_cancelled_run_stops_all_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    cancel = threading.Event()

    class Stopping(Seen):
        def begins(self, plan: Plan, notices: Sequence[str]) -> None: ...

        def moved(self, read: int, written: int) -> None:
            super().moved(read, written)
            cancel.set()

        def live(self, host: int, device: int) -> None:
            held.append((host, device))

    held: list[tuple[int, int]] = []
    plan = plan_of(folder, RECIPES["ties"], "cuda:0,cuda:1")
    with pytest.raises(Cancelled):
        run_plan(plan, folder / "out", progress=Stopping(), cancel=cancel)
    assert max(host for host, _ in held) <= plan.peak_host
    assert 0 < max(device for _, device in held) <= plan.peak_device


def test_names_of_devices() -> None:
    assert choose_device("cuda:1,cuda:0") == "cuda:1,cuda:0"
    for wrong in ("cuda:0,cuda:0", "cuda:0,cpu", "cuda:0,", "cuda,cuda:1", "cuda:0,mps"):
        with pytest.raises(MergecError) as caught:
            choose_device(wrong)
        assert [d.code for d in caught.value.diagnostics] == ["E0613"]
