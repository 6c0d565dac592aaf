"""The target appears whole or not at all, and never over something that is still needed."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import mergec
import pytest
import torch
from mergec.compiler.plan.plan import PlannedOutput
from mergec.grammar.diagnostic import Exit, MergecError
from mergec.runtime.output import swap
from mergec.runtime.output.target import Target
from safetensors.torch import save_file
from tiny_plan import FIXED, MADE, PLAN, WEIGHTS, code, make, planned, tree


def _no_exchange(first: str, second: str) -> bool:  # noqa: ARG001
    return False


def _no_access(path: str, mode: int) -> bool:  # noqa: ARG001
    return False


@pytest.fixture(params=["exchange", "two renames"])
def both_swaps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with the file system's swap of two paths, and without."""
    if request.param == "two renames":
        monkeypatch.setattr(swap, "exchange", _no_exchange)


@pytest.mark.parametrize("name", ["out", "two words", "größe-模型", "-x", ".hidden", "a\nb"])
def test_appears_under_its_name(tmp_path: Path, name: str) -> None:
    make(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert tree(tmp_path / name) == MADE


def test_single_file(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, single=True, documents=())
    make(tmp_path / "merged.safetensors", plan)
    assert tree(tmp_path) == {"merged.safetensors": WEIGHTS}
    before = os.stat(tmp_path / "merged.safetensors").st_ino
    make(tmp_path / "merged.safetensors", plan, force=True)
    assert tree(tmp_path) == {"merged.safetensors": WEIGHTS}
    assert os.stat(tmp_path / "merged.safetensors").st_ino != before


@pytest.mark.usefixtures("both_swaps")
def test_existing_target(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("old")
    with pytest.raises(MergecError, match="exists already") as caught:
        make(out)
    assert code(caught) == ("E0601", Exit.RUN)
    assert caught.value.diagnostics[0].help == ("give another path, or replace it with `--force`",)
    assert tree(tmp_path) == {"out/config.json": b"old"}
    make(out, force=True)
    assert tree(out) == MADE
    assert os.listdir(tmp_path) == ["out"]


def test_failure_leaves_the_old_target(tmp_path: Path) -> None:
    make(tmp_path / "out")

    def interrupted() -> None:
        with Target(str(tmp_path / "out"), PLAN, force=True) as target:
            Path(target.folder, "half").write_text("half")
            assert tree(tmp_path / "out") == MADE
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == ["out"]
    assert tree(tmp_path / "out") == MADE


def test_failed_second_rename_puts_the_old_target_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "out")
    rename, calls = os.rename, []

    def second_fails(source: str, target: str) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(swap, "exchange", _no_exchange)
    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(MergecError, match="input/output error") as caught:
        make(tmp_path / "out", force=True)
    assert code(caught) == ("E0610", Exit.RUN)
    assert os.listdir(tmp_path) == ["out"]
    assert tree(tmp_path / "out") == MADE


def test_leftovers_of_a_killed_run(tmp_path: Path) -> None:
    partial = tmp_path / ".out.partial"
    for part in ("old", "out"):
        (partial / part).mkdir(parents=True)
        (partial / part / "config.json").write_text(part)
    (partial / "lock").write_text("")
    # killed between the two renames, so the old target is all there is: it comes back, and then it
    # is in the way
    with pytest.raises(MergecError, match="exists already"):
        make(tmp_path / "out")
    assert tree(tmp_path) == {"out/config.json": b"old"}
    make(tmp_path / "out", force=True)
    assert tree(tmp_path / "out") == MADE


def test_killed_run_leaves_the_way_free(tmp_path: Path) -> None:
    make(tmp_path / "out")
    code = (
        "import sys, tiny_plan\n"
        "with tiny_plan.Target(sys.argv[1], tiny_plan.PLAN, force=True), open(sys.argv[2], 'w') as half:\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    half = tmp_path / ".out.partial" / "out" / "half"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "out"), str(half)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(MergecError, match="another run is making"):
            make(tmp_path / "out", force=True)
        process.kill()
    assert half.exists()
    assert tree(tmp_path / "out") == MADE
    make(tmp_path / "out", force=True)
    assert os.listdir(tmp_path) == ["out"]
    assert tree(tmp_path / "out") == MADE


def test_second_run_is_refused(tmp_path: Path) -> None:
    with Target(str(tmp_path / "out"), PLAN):
        with pytest.raises(MergecError, match="another run is making") as caught:
            make(tmp_path / "out")
        assert code(caught) == ("E0605", Exit.RUN)
    make(tmp_path / "out")


def test_many_runs_at_once(tmp_path: Path) -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(6)

    def run() -> None:
        barrier.wait()
        for _ in range(10):
            try:
                make(tmp_path / "out", force=True)
                outcomes.append("made")
            except MergecError as error:
                outcomes.append(error.diagnostics[0].code)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 60
    assert set(outcomes) <= {"made", "E0605"}
    assert outcomes.count("made") > 0
    assert tree(tmp_path / "out") == MADE
    assert os.listdir(tmp_path) == ["out"]


def test_parent_must_exist(tmp_path: Path) -> None:
    with pytest.raises(MergecError, match=r"no folder `.*none` to put the output in") as caught:
        make(tmp_path / "none" / "out")
    assert code(caught) == ("E0602", Exit.RUN)


def test_parent_must_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", _no_access)
    with pytest.raises(MergecError, match="is not writable") as caught:
        make(tmp_path / "out")
    assert code(caught) == ("E0602", Exit.RUN)


def test_free_space(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, outputs=(PlannedOutput("model.safetensors", 10**18, FIXED),))
    with pytest.raises(MergecError, match=r"the output needs 1,000,000,000.00 GB and `.*` has .* GB free") as caught:
        make(tmp_path / "out", plan)
    assert code(caught) == ("E0604", Exit.RUN)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("where", ["models/a", "models", "models/a/out", "models/a/model.safetensors", "link"])
def test_target_and_inputs_apart(tmp_path: Path, where: str) -> None:
    model = tmp_path / "models" / "a"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"x")
    (tmp_path / "link").symlink_to(model)
    plan = dataclasses.replace(PLAN, inputs=(planned(model / "model.safetensors"),))
    with pytest.raises(MergecError) as caught:
        make(tmp_path / where, plan, force=True)
    assert code(caught) == ("E0603", Exit.RUN)
    assert tree(model) == {"config.json": b"{}", "model.safetensors": b"x"}


@pytest.mark.parametrize("where", ["folder/out", "folder/out.safetensors", "folder", "link/out"])
def test_no_output_in_a_folder_of_loose_weight_files_that_is_an_input(tmp_path: Path, where: str) -> None:
    """The next run would take it for a part of that input."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    save_file({"x.weight": torch.ones(4, 4)}, tmp_path / "folder" / "a.safetensors")
    (tmp_path / "r.mrg").write_text('let a = model("folder")\n* = 2*a\n')
    before = tree(tmp_path / "folder")
    compiled = mergec.compile(tmp_path / "r.mrg", single=where.endswith(".safetensors"))
    with pytest.raises(MergecError) as caught:
        compiled.run(tmp_path / where, force=True)
    assert code(caught) == ("E0603", Exit.RUN)
    assert tree(tmp_path / "folder") == before
    assert not list(tmp_path.glob(".*"))


def test_output_beside_loose_weight_files(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"x")
    plan = dataclasses.replace(PLAN, inputs=(planned(tmp_path / "a.safetensors"),))
    make(tmp_path / "out", plan)
    assert tree(tmp_path / "out") == MADE


def test_lock_is_a_lock_of_the_system(tmp_path: Path) -> None:
    with Target(str(tmp_path / "out"), PLAN), open(tmp_path / ".out.partial" / "lock") as file:
        descriptor = file.fileno()
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
