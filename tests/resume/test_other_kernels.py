"""Numbers of compiled kernels and of torch's are never mixed: functions such as `sin` may differ in
the last bit."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import mergec
import pytest
from compiled import skip_without_a_compiler
from mergec.runtime.execute.executor import Cancelled
from mergec.runtime.native import backend
from mergec.runtime.resume import environment
from resume_models import Told, plan_of, weights, write_models

RECIPE = "* = a * exp(b)\nembed = base\n"


@pytest.fixture(autouse=True, scope="module")
def _built() -> None:
    skip_without_a_compiler()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models") / "m")


def without_compiled_kernels(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(backend, "kernels", lambda: None)
    patch.setattr(environment, "opened", lambda: None)


def test_an_output_of_others_is_made_anew(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    mergec.run(plan_of(folder, RECIPE), out)
    assert json.loads((out / "mergec.json").read_text())["made_with"]["kernels"] == "native"
    without_compiled_kernels(monkeypatch)
    told = Told()
    report = mergec.run(plan_of(folder, RECIPE), out, force=True, progress=told)
    assert report.reused == 0
    assert any("other kernels for the CPU" in notice for notice in told.notices)
    mergec.run(plan_of(folder, RECIPE), tmp_path / "fresh")
    assert weights(out) == weights(tmp_path / "fresh")
    assert json.loads((out / "mergec.json").read_text())["made_with"]["kernels"] == "torch"


def test_a_stopped_run_of_others_is_not_gone_on_with(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        mergec.run(plan_of(folder, RECIPE), tmp_path / "out", progress=Told(5, cancel.set), cancel=cancel)
    without_compiled_kernels(monkeypatch)
    assert mergec.run(plan_of(folder, RECIPE), tmp_path / "out").resumed == 0
