"""What a run that stops leaves behind, what is said about it, and what the next run makes of it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mergec
import pytest
from in_step import in_step
from mergec.cli.main import main
from mergec.runtime.execute.executor import Cancelled
from mergec.runtime.output.writer import Writer
from mergec.runtime.resume import journal, keeper
from resume_models import CHANGED, RECIPE, Told, merged, plan_of, weights, write_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture(scope="module")
def wanted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return merged(plan_of(folder), tmp_path_factory.mktemp("wanted") / "out")


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SECONDS", 0.0)


def stopped(folder: Path, out: Path, *, after: int = 8, recipe: str = RECIPE) -> Cancelled:
    """Stops a run at its `after`-th tensor."""
    cancel = threading.Event()
    with pytest.raises(Cancelled) as caught:
        mergec.run(plan_of(folder, recipe), out, progress=Told(after, cancel.set), cancel=cancel)
    return caught.value


def test_stopped_and_gone_on(folder: Path, tmp_path: Path, wanted: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    notes = stopped(folder, out).__notes__
    assert os.listdir(tmp_path) == [".out.partial"]
    assert " of 20 tensors are done and kept in" in notes[0]
    assert "`--fresh` to start over" in notes[1]
    told = Told()
    report = mergec.run(plan_of(folder), out, progress=told)
    assert weights(out) == wanted
    assert os.listdir(tmp_path) == ["out"]
    assert report.resumed > 0
    assert told.notices == [f"going on with a run that was stopped: {report.resumed} of 20 tensors are there"]
    assert told.writes < sum(t.nbytes for t in plan_of(folder).tensors)
    assert report.outcome.bytes_written == told.writes


def test_stopped_before_anything_is_done(folder: Path, tmp_path: Path) -> None:
    assert not hasattr(stopped(folder, tmp_path / "out", after=0), "__notes__")
    assert os.listdir(tmp_path) == []


def test_stopped_again_and_again(folder: Path, tmp_path: Path, wanted: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    for after in (3, 2, 4):
        stopped(folder, out, after=after)
    mergec.run(plan_of(folder), out)
    assert weights(out) == wanted


def test_other_blocks_lanes_and_budgets_go_on(folder: Path, tmp_path: Path, wanted: dict[str, bytes]) -> None:
    stopped(folder, tmp_path / "out")
    report = mergec.run(plan_of(folder, lanes=1, block=1 << 16), tmp_path / "out")
    assert report.resumed > 0
    assert weights(tmp_path / "out") == wanted


def test_single_file(folder: Path, tmp_path: Path) -> None:
    plan, cancel = plan_of(folder, single=1), threading.Event()
    mergec.run(plan, tmp_path / "wanted.safetensors")
    out = tmp_path / "out.safetensors"
    with pytest.raises(Cancelled):
        mergec.run(plan, out, progress=Told(8, cancel.set), cancel=cancel)
    assert mergec.run(plan, out).resumed > 0
    assert out.read_bytes() == (tmp_path / "wanted.safetensors").read_bytes()


def test_fresh(folder: Path, tmp_path: Path, wanted: dict[str, bytes]) -> None:
    stopped(folder, tmp_path / "out")
    told = Told()
    assert mergec.run(plan_of(folder), tmp_path / "out", fresh=True, progress=told).resumed == 0
    assert told.notices == []
    assert weights(tmp_path / "out") == wanted


# --- what is not gone on with --------------------------------------------------------------------


def test_another_recipe_starts_over_and_says_so(folder: Path, tmp_path: Path) -> None:
    stopped(folder, tmp_path / "out")
    told = Told()
    report = mergec.run(plan_of(folder, CHANGED), tmp_path / "out", progress=told)
    assert report.resumed == 0
    why = "the recipe, its settings or an input have changed since"
    assert told.notices == [f"starting over, not from where an earlier run was stopped: {why}"]
    assert weights(tmp_path / "out") == merged(plan_of(folder, CHANGED), tmp_path / "wanted")


def test_another_text_of_the_same_meaning_goes_on(folder: Path, tmp_path: Path) -> None:
    stopped(folder, tmp_path / "out")
    again = RECIPE.replace("layers[3] = 0.5*a + 0.5*b", "# a comment\nlayers[3] = (0.5*a + 0.5*b)")
    assert mergec.run(plan_of(folder, again), tmp_path / "out").resumed > 0


def test_another_version_starts_over(folder: Path, tmp_path: Path) -> None:
    stopped(folder, tmp_path / "out")
    told = Told()
    mergec.run(plan_of(folder, version="1"), tmp_path / "out", progress=told)
    assert told.notices[0].endswith("it was made with another version of mergec")


def test_another_input_starts_over(tmp_path: Path) -> None:
    folder = write_models(tmp_path / "m")
    stopped(folder, tmp_path / "out")
    data = (folder / "a.safetensors").read_bytes()
    (folder / "a.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    told = Told()
    mergec.run(plan_of(folder), tmp_path / "out", progress=told)
    assert f"input `{folder}/a.safetensors` has changed since" in told.notices[0]
    assert weights(tmp_path / "out") == merged(plan_of(folder), tmp_path / "wanted")


def test_a_model_put_in_place_of_another_with_its_times_kept(tmp_path: Path) -> None:
    folder = write_models(tmp_path / "m")
    stopped(folder, tmp_path / "out")
    status = (folder / "a.safetensors").stat()
    (folder / "a.safetensors").write_bytes((folder / "b.safetensors").read_bytes())
    os.utime(folder / "a.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert mergec.run(plan_of(folder), tmp_path / "out").resumed == 0
    assert weights(tmp_path / "out") == merged(plan_of(folder), tmp_path / "wanted")


def test_bytes_that_are_not_what_they_were_are_made_again(
    folder: Path, tmp_path: Path, wanted: dict[str, bytes]
) -> None:
    stopped(folder, tmp_path / "out", after=12)
    partial = tmp_path / ".out.partial"
    plan = plan_of(folder)
    contents = journal.read(str(partial / "journal"))
    assert contents is not None
    spoilt = plan.tensors[contents.entries[0].tensor]
    with open(partial / "out" / plan.outputs[spoilt.file].name, "r+b") as file:
        file.seek(spoilt.start + spoilt.nbytes - 1)
        last = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([last[0] ^ 1]))
    assert mergec.run(plan, tmp_path / "out").resumed == len(contents.entries) - 1
    assert weights(tmp_path / "out") == wanted


@pytest.mark.parametrize("files", ["one", "all"])
def test_every_finished_tensor_of_a_file_is_damaged(
    files: str, folder: Path, tmp_path: Path, wanted: dict[str, bytes]
) -> None:
    """The file is made anew; it must not be in its own way, now or ever."""
    out, plan = tmp_path / "out", plan_of(folder)
    for _ in range(2):
        stopped(folder, out, after=12)
        damaged = sorted((tmp_path / ".out.partial" / "out").iterdir())[: 1 if files == "one" else None]
        for path in damaged:
            start = len(next(o for o in plan.outputs if o.name == path.name).fixed[0].data)
            path.write_bytes(path.read_bytes()[:start] + bytes(path.stat().st_size - start))
    (tmp_path / ".out.partial" / "out" / "config.json").write_text("left behind")
    resumed = mergec.run(plan, out, force=files == "one").resumed
    assert (resumed > 0) == (files == "one")
    assert weights(out) == wanted
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("damage", ["torn", "garbage", "a changed line", "no head", "empty", "gone", "a file is gone"])
def test_a_damaged_journal(damage: str, folder: Path, tmp_path: Path, wanted: dict[str, bytes]) -> None:
    stopped(folder, tmp_path / "out", after=12)
    path = tmp_path / ".out.partial" / "journal"
    lines = path.read_bytes().splitlines(keepends=True)
    whole = len(lines) - 1
    kept = {"torn": whole - 1, "garbage": whole, "a changed line": 2}.get(damage, 0)
    if damage == "torn":
        lines[-1] = lines[-1][:-4]
    elif damage == "garbage":
        lines.append(bytes(100) + b"\n\xff")
    elif damage == "a changed line":
        lines[3] = lines[3].replace(b'"tensor":', b'"tensor":1')
    elif damage == "no head":
        lines = lines[1:]
    elif damage == "empty":
        lines = []
    path.write_bytes(b"".join(lines))
    if damage == "gone":
        path.unlink()
    elif damage == "a file is gone":
        for file in (path.parent / "out").iterdir():
            file.unlink()
    assert mergec.run(plan_of(folder), tmp_path / "out").resumed == kept
    assert weights(tmp_path / "out") == wanted


# --- what stops a run ----------------------------------------------------------------------------


def failing(call: Callable[..., Any], number: int, after: int) -> Callable[..., Any]:
    """A system call that fails on weights after it did its work some times."""
    left = [after]

    def fail(descriptor: int, *rest: Any) -> Any:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".safetensors"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(number, os.strerror(number))
        return call(descriptor, *rest)

    return fail


@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("pwrite", errno.ENOSPC, "E0609"),
        ("pwrite", errno.EIO, "E0610"),
        ("fsync", errno.EIO, "E0610"),
        ("preadv", errno.EIO, "E0611"),
    ],
)
def test_faults_of_the_disk(
    name: str,
    number: int,
    code: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: dict[str, bytes],
) -> None:
    plan = plan_of(folder, lanes=1)
    after = {"pwrite": 6, "fsync": 2, "preadv": 12}[name]
    with monkeypatch.context() as patch:
        # else the journal's first line may be about tensors of three files, and fail with the third
        # of them
        in_step(patch.setattr)
        patch.setattr(os, name, failing(getattr(os, name), number, after))
        with pytest.raises(mergec.MergecError) as caught:
            mergec.run(plan, tmp_path / "out")
    first = caught.value.diagnostics[0]
    assert first.code == code
    assert os.listdir(tmp_path) == [".out.partial"]
    assert "of 20 tensors are done and kept in" in first.help[-2]
    assert mergec.run(plan, tmp_path / "out").resumed > 0
    assert weights(tmp_path / "out") == wanted


def test_a_limit_on_the_size_of_files(folder: Path, tmp_path: Path, wanted: dict[str, bytes]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(mergec.MergecError, match="file too large"):
            mergec.run(plan_of(folder), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []
    assert merged(plan_of(folder), tmp_path / "out") == wanted


def test_nothing_is_kept_where_going_on_is_no_use(tmp_path: Path) -> None:
    folder = write_models(tmp_path / "m")
    recipe = RECIPE.replace("18kB", '18kB", on_nonfinite="error') + "head = 1e38*a*b*1e38\n"
    with pytest.raises(mergec.MergecError, match="E0614"):
        mergec.run(plan_of(folder, recipe), tmp_path / "out")
    assert os.listdir(tmp_path) == ["m"]
    plan = plan_of(folder)
    told = Told(8, lambda: os.utime(folder / "a.safetensors"))
    with pytest.raises(mergec.MergecError, match="E0606"):
        mergec.run(plan, tmp_path / "out", progress=told)
    assert os.listdir(tmp_path) == ["m"]


def test_counts_of_what_is_not_finite_are_kept(folder: Path, tmp_path: Path) -> None:
    recipe = RECIPE + "layers[0].q = 1e38*a*1e38\n"
    counts = mergec.run(plan_of(folder, recipe), tmp_path / "wanted").outcome.non_finite
    assert counts
    stopped(folder, tmp_path / "out", after=12, recipe=recipe)
    report = mergec.run(plan_of(folder, recipe), tmp_path / "out")
    assert report.resumed > 0
    assert report.outcome.non_finite == counts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(
    number: signal.Signals,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = tmp_path / "r.mrg"
    lets = "".join(f'let {label} = model("{folder}/{label}.safetensors")\n' for label in ("base", "a", "b"))
    recipe.write_text(lets + RECIPE)
    words = [str(recipe), "-o", str(tmp_path / "out"), "--device", "cpu"]
    write, left = Writer.write, [6]

    def signalled(self: Writer, file: int, start: int, data: memoryview) -> None:
        write(self, file, start, data)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", signalled)
        assert main(words) == 130
    shown = capsys.readouterr().err
    assert shown.startswith("mergec: interrupted\n  ")
    assert f"kept in `{tmp_path}/.out.partial`, which takes" in shown
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "mergec: going on with a run that was stopped: " in shown.err
    assert main(words) == 0
    assert capsys.readouterr().out == f"nothing to do: {tmp_path}/out is what the recipe makes\n"
