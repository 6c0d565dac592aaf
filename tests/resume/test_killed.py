"""A run that is killed at any instant, or by a loss of power, and the run after it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import mergec
import pytest
from in_step import in_step, told
from mergec.compiler.plan.plan import Plan
from mergec.runtime.output import swap
from mergec.runtime.resume import keeper
from mergec.runtime.resume.journal import Done, Journal
from resume_models import CHANGED, merged, plan_of, weights, write_models
from watched_disk import Disk

INSTANTS = {"nothing": 25, "nothing, two lanes": 8, "an output": 8, "an output, two renames": 8}
"""At how many instants a run is stopped, in two ways each, by what is there before and how it
runs."""

LATE = {"nothing": 2, "nothing, two lanes": 8, "an output": 4, "an output, two renames": 4}
"""One in how many of these is, at least, one after the journal has taken its first tensor. With two
lanes the threads decide when that is, so that one will do."""

KILLS = int(os.environ.get("MERGEC_TEST_KILLS", "4"))
"""How many processes are killed; 50 of them take a while."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every finished tensor goes into the journal at once."""
    monkeypatch.setattr(keeper, "SECONDS", 0.0)


def _no_exchange(first: str, second: str) -> bool:  # noqa: ARG001
    return False


def _no_sync(descriptor: int) -> None:
    """Nothing is lost in these tests but what is lost on purpose."""


@pytest.mark.parametrize("before", INSTANTS)
def test_stopped_at_any_instant(before: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier output is there whole until the new one is; the next run makes the bytes of an
    undisturbed one, and has every tensor of which the journal told."""
    lanes = 2 if before.endswith("lanes") else 1
    plan = plan_of(folder, lanes=lanes)
    earlier_plan = plan_of(folder, CHANGED, lanes=lanes) if before.startswith("an output") else None
    wanted = merged(plan, tmp_path / "wanted")
    if before.endswith("renames"):
        monkeypatch.setattr(swap, "exchange", _no_exchange)
    if lanes == 1:
        in_step(monkeypatch.setattr)
    counted = _run(plan, earlier_plan, tmp_path / "count", set(), monkeypatch)
    count = counted.instants
    # the last rename too: with two of them, there is no output at all before it
    stops = {*random.Random(1).sample(range(count), INSTANTS[before]), *counted.renames[-1:]}
    disk = _run(plan, earlier_plan, tmp_path / "stopped", stops, monkeypatch)
    assert lanes > 1 or disk.instants == count
    assert weights(disk.root / "out") == wanted
    earlier = weights(disk.root / "earlier") if earlier_plan else None
    monkeypatch.setattr(os, "fsync", _no_sync)
    between = 0
    assert sum(map(bool, disk.seen.values())) >= len(disk.seen) / LATE[before]
    for copy in sorted((tmp_path / "stopped").glob("*/[0-9]*")):
        found, there = weights(copy / "out") if (copy / "out").exists() else None, told(copy / "out")
        if found is None and earlier is not None:
            # between two renames the old output has its other name
            assert weights(copy / ".out.partial" / "old") == earlier, copy
            between += 1
        else:
            assert found in (earlier, wanted), copy
        # what the journal had taken by then is there, whatever was lost
        assert found == wanted or there >= disk.seen[int(copy.name)], copy
        report = mergec.run(plan, copy / "out", force=True)
        assert weights(copy / "out") == wanted, copy
        assert {p.name for p in copy.iterdir()} <= {"out", "earlier"}
        # a copy is not the very output that was written, so what is in it has to be looked at
        assert not report.unchanged, copy
        assert found == wanted or report.resumed == there, copy
    assert between == (2 if before.endswith("renames") else 0)


def _run(plan: Plan, earlier: Plan | None, place: Path, stops: set[int], monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Runs the plan on a watched disk, over the output of another one. `seen` is how many tensors
    the journal has."""
    root = place / "root"
    root.mkdir(parents=True)
    if earlier is not None:
        mergec.run(earlier, root / "out")
        shutil.copytree(root / "out", root / "earlier")
    taken = 0

    def counted(self: Journal, entries: Iterable[Done]) -> None:
        nonlocal taken
        entries = tuple(entries)
        append(self, entries)
        taken += len(entries)

    append = Journal.append
    disk = Disk(root, place, stops, look=lambda: taken)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", counted)
        disk.watch(patch)
        mergec.run(plan, root / "out", force=True)
    return disk


KILLED = """
import os, random, shutil, signal, sys
from pathlib import Path
import mergec
from in_step import in_step, told
from mergec.runtime.resume import keeper
from mergec.runtime.resume.journal import Journal
from resume_models import plan_of, weights

folder, out, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
plan = plan_of(folder)
keeper.SECONDS = 0.0
in_step(setattr)
os.fsync = lambda descriptor: None
random.seed(kills)

def kill_at(place, name, left):
    call = getattr(place, name)
    def counted(*args):
        nonlocal left
        left -= 1
        if left == 0:
            os.killpg(0, signal.SIGKILL)
        return call(*args)
    setattr(place, name, counted)

for kill in range(kills):
    there, write = told(out), random.randrange(1, 60)
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        if kill == 0:
            kill_at(Journal, "append", 3)
        else:
            kill_at(os, "pwrite", write)
        report = mergec.run(plan, out)
        os._exit(0 if report.resumed == there else 1)
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status):
        # it came to its end before its turn to be killed
        assert kill > 0
        assert os.WEXITSTATUS(status) == 0
        assert weights(out) == weights(folder.parent / "wanted")
        shutil.rmtree(out)
    else:
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert not out.exists()
        assert told(out) >= max(there, 2 * (kill == 0))
there = told(out)
assert mergec.run(plan, out).resumed == there
"""


def test_killed_processes(folder: Path, tmp_path: Path) -> None:
    """The real thing: SIGKILL to the process group, at the journal's third line and then at random
    writes; every run has what the journal tells of."""
    wanted = folder.parent / "wanted"
    if not wanted.exists():
        merged(plan_of(folder), wanted)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "out"), str(KILLS)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "out") == weights(wanted)
    assert os.listdir(tmp_path) == ["out"]
