"""A changed recipe onto an output of its own: only what has changed is computed, and only bytes to
be trusted are taken over."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mergec
import pytest
import torch
from mergec.cli.main import main
from mergec.compiler.emit import content
from mergec.runtime.catalog import extension_code
from mergec.runtime.resume.earlier import examine
from mergec.runtime.resume.record import sealed_text
from mergec.runtime.session.session import Report
from mergec.runtime.stream import batching
from resume_models import CHANGED, RECIPE, SHAPES, Told, merged, plan_of, weights, write_models
from safetensors.torch import load_file

ONE = RECIPE.replace('shard_size="18kB"', "")
"""The recipe with one weight file."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models") / "m")


class Quiet:
    notices: tuple[str, ...] = ()

    def begins(self, plan: Any, notices: Any) -> None:  # noqa: ARG002
        self.notices = tuple(notices)

    def tensor(self, index: int) -> None: ...

    def moved(self, read: int, written: int) -> None: ...

    def live(self, host: int, device: int) -> None: ...


def changed(folder: Path, out: Path, recipe: str, reference: Path) -> Report:
    """Runs a recipe over what is at `out`, and sees that the bytes are those of a run from
    nothing."""
    report = mergec.run(plan_of(folder, recipe), out, force=True)
    assert weights(out) == merged(plan_of(folder, recipe), reference)
    mine, theirs = (json.loads((place / "mergec.json").read_text()) for place in (out, reference))
    assert mine["tensors"].keys() == theirs["tensors"].keys()
    for name, (key, checksum, *bad) in theirs["tensors"].items():
        assert mine["tensors"][name] in ([key, checksum, *bad], [key, None, *bad])
    assert not [p for p in out.parent.iterdir() if p.name.startswith(".")]
    return report


@pytest.mark.parametrize("recipe", [RECIPE, ONE], ids=["several files", "one file"])
def test_only_what_has_changed(recipe: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mergec.run(plan_of(folder, recipe), out)
    other = recipe.replace("0.5*a + 0.5*b", "0.4*a + 0.6*b")
    report = changed(folder, out, other, tmp_path / "wanted")
    assert report.reused == len(SHAPES) - 3
    computed = sum(t.nbytes for t in plan_of(folder, recipe).tensors if "layers.3." in t.name)
    assert report.outcome.bytes_read - report.outcome.bytes_written <= 3 * computed
    # and back again
    assert changed(folder, out, recipe, tmp_path / "first").reused == len(SHAPES) - 3


def test_whole_files_are_not_copied(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mergec.run(plan_of(folder), out)
    before = {p.name: p.stat().st_ino for p in out.glob("*.safetensors")}
    report = changed(folder, out, CHANGED, tmp_path / "wanted")
    after = {p.name: p.stat().st_ino for p in out.glob("*.safetensors")}
    assert sum(before[name] == after[name] for name in before) >= len(before) - 2
    assert all(p.stat().st_nlink == 1 for p in out.iterdir())
    assert report.outcome.bytes_written < sum(p.stat().st_size for p in out.glob("*.safetensors")) / 2


def test_an_input_that_shares_a_file_with_the_earlier_output(folder: Path, tmp_path: Path) -> None:
    """A second name for the earlier output's file would change the status of that input."""
    out, copy = tmp_path / "out", tmp_path / "copy"
    mergec.run(plan_of(folder), out)
    copy.mkdir()
    for path in out.iterdir():
        os.link(path, copy / path.name)
    recipe = RECIPE.replace("0.5*a + 0.5*b", f'0.5*a + 0.5*model("{copy}")')
    assert recipe != RECIPE
    wanted = merged(plan_of(folder, recipe), tmp_path / "wanted")
    assert mergec.run(plan_of(folder, recipe), out, force=True).reused == len(SHAPES) - 3
    assert weights(out) == wanted


def test_names_that_a_stopped_run_has_left(folder: Path, tmp_path: Path) -> None:
    """It has linked files of the earlier output, of which another recipe can use a part only."""

    class Stopped(Exception): ...

    def stop() -> None:
        raise Stopped

    out = tmp_path / "out"
    mergec.run(plan_of(folder), out)
    with pytest.raises(Stopped):
        mergec.run(plan_of(folder, CHANGED), out, force=True, progress=Told(4, stop))
    linked = [p for p in out.glob("*.safetensors") if p.stat().st_nlink > 1]
    recipe = RECIPE + "head = 0.3*a + 0.7*b\nlayers[0].q = 0.3*a + 0.7*b\nlayers[5].k = 0.3*a + 0.7*b\n"
    assert linked
    assert changed(folder, out, recipe, tmp_path / "wanted").reused > 0


def test_nothing_to_do(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mergec.run(plan_of(folder), out)
    state = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.iterdir()}
    for options in ({}, {"force": True}):
        report = mergec.run(plan_of(folder, lanes=1), out, **options)
        assert report.unchanged
        assert report.reused == len(SHAPES)
        assert report.outcome.bytes_written == 0
    assert {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.iterdir()} == state
    assert not mergec.run(plan_of(folder), out, force=True, fresh=True).unchanged
    assert weights(out) == merged(plan_of(folder), tmp_path / "wanted")


@pytest.mark.parametrize(
    "twice",
    [
        "layers[0] = a.layers[1]\nlayers[1] = a.layers[1]\n",
        "layers[0] = 2*a.layers[1]\nlayers[1] = 2*a.layers[1]\n",
        "embed = 0*a\nhead = 0*b\n",
    ],
)
def test_tensors_of_one_key_are_each_in_its_place(twice: str, folder: Path, tmp_path: Path) -> None:
    """A layer that the output has twice, or two tensors of zeros."""
    out, recipe = tmp_path / "out", 'output(shard_size="18kB")\n* = base\n' + twice
    mergec.run(plan_of(folder, recipe), out)
    plan = plan_of(folder, recipe)
    keys = [t.key for t in plan.tensors]
    assert len(set(keys)) < len(keys)
    assert mergec.run(plan, out).unchanged
    report = changed(folder, out, recipe + "layers[5].norm = 0.5*a + 0.5*b\n", tmp_path / "wanted")
    assert report.reused == len(keys) - 1


def test_only_the_papers_have_changed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mergec.run(plan_of(folder), out)
    report = changed(folder, out, "# a remark\n" + RECIPE, tmp_path / "wanted")
    assert (report.reused, report.outcome.bytes_written, report.unchanged) == (len(SHAPES), 0, False)
    assert "# a remark" in (out / "README.md").read_text()
    (out / "README.md").write_text("mine")
    assert not mergec.run(plan_of(folder, "# a remark\n" + RECIPE), out, force=True).unchanged


def test_another_output_needs_force(folder: Path, tmp_path: Path) -> None:
    mergec.run(plan_of(folder), tmp_path / "out")
    with pytest.raises(mergec.MergecError, match="E0601"):
        mergec.run(plan_of(folder, CHANGED), tmp_path / "out")


# --- trust ---------------------------------------------------------------------------------------


def spoil(path: Path, *, keep_time: bool) -> None:
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def _in_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of small tensors are the kernel's, which makes no checksum, and don't go along with
    what is computed."""
    monkeypatch.setattr(batching, "SMALL", 0)


@pytest.mark.usefixtures("_in_kernel")
def test_a_file_that_was_written_to_is_checked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mergec.run(plan_of(folder, ONE), out)
    spoil(out / "model.safetensors", keep_time=False)
    # all but the spoilt tensor and the one that the kernel copied, whose checksum nobody knows
    report = changed(folder, out, ONE, tmp_path / "wanted")
    assert not report.unchanged
    assert report.reused == len(SHAPES) - 2


@pytest.mark.usefixtures("_in_kernel")
def test_times_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mergec.run(plan_of(folder, ONE), out)
    os.utime(out / "model.safetensors")
    assert changed(folder, out, ONE, tmp_path / "wanted").reused == len(SHAPES) - 1
    assert mergec.run(plan_of(folder, ONE), out).unchanged


def same_times(*paths: Path) -> None:
    """Gives files the same times, as if they had been written within one tick of the clock."""
    for _ in range(3000):
        for path in paths:
            os.utime(path, ns=(10**18, 10**18))
        if len({path.stat().st_ctime_ns for path in paths}) == 1:
            return
    pytest.skip("this file system's clock tells them apart")


def trade_places(one: Path, two: Path) -> None:
    one.rename(one.with_name("meanwhile"))
    two.rename(one)
    one.with_name("meanwhile").rename(two)


@pytest.mark.parametrize("moved", ["files", "folders"])
def test_inputs_that_trade_places_within_a_tick(moved: str, tmp_path: Path) -> None:
    """Sizes and all times are as they were, and the folders' renaming leaves those of the files in
    them alone."""
    models, out = tmp_path / "m", tmp_path / "out"
    write_models(models)
    for label in ("base", "a", "b"):
        (tmp_path / label).mkdir()
        (models / f"{label}.safetensors").rename(tmp_path / label / "model.safetensors")
    files = [tmp_path / label / "model.safetensors" for label in ("a", "b")]
    same_times(*files)
    lets = "".join(f'let {label} = model("{tmp_path}/{label}")\n' for label in ("base", "a", "b"))

    def run(**options: bool) -> Report:
        (tmp_path / "r.mrg").write_text(lets + "* = 0.3*a + 0.6*b + 0.1*base\n")
        return mergec.compile(tmp_path / "r.mrg", device="cpu").run(out, **options)

    run()
    before = weights(out)
    assert run().unchanged
    if moved == "files":
        trade_places(*files)
        same_times(*files)
    else:
        trade_places(tmp_path / "a", tmp_path / "b")
    with pytest.raises(mergec.MergecError, match="E0601"):
        run()
    # what takes only the base is none of this recipe's, so nothing is as it was
    assert run(force=True).reused == 0
    a, b, base = (load_file(tmp_path / label / "model.safetensors") for label in ("a", "b", "base"))
    made = load_file(out / "model.safetensors")
    for name, got in made.items():
        wanted = 0.3 * a[name].double() + 0.6 * b[name].double() + 0.1 * base[name].double()
        assert torch.allclose(got.double(), wanted, atol=1e-6), name
    assert weights(out) != before


def test_a_copied_input_is_another(folder: Path, tmp_path: Path) -> None:
    """Also with its times kept: everything is made again, which is no fault."""
    models, out = tmp_path / "m", tmp_path / "out"
    shutil.copytree(folder, models)
    mergec.run(plan_of(models), out)
    models.rename(tmp_path / "away")
    shutil.copytree(tmp_path / "away", models)
    assert changed(models, out, RECIPE, tmp_path / "wanted").reused == 0


def test_weight_files_of_two_outputs_that_trade_places(folder: Path, tmp_path: Path) -> None:
    """Of equal size and time, with the same tensors in them; only their checksums tell."""
    out, other = tmp_path / "out", tmp_path / "other"
    mergec.run(plan_of(folder, ONE), out)
    mergec.run(plan_of(folder, ONE.replace("0.5*a + 0.5*b", "0.4*a + 0.6*b")), other)
    status = (out / "model.safetensors").stat()
    trade_places(out / "model.safetensors", other / "model.safetensors")
    os.utime(out / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns))
    report = changed(folder, out, ONE, tmp_path / "wanted")
    assert not report.unchanged
    assert report.reused == len(SHAPES) - 3


def test_a_copied_output_is_looked_at(folder: Path, tmp_path: Path) -> None:
    mergec.run(plan_of(folder), tmp_path / "made")
    shutil.copytree(tmp_path / "made", tmp_path / "out")
    report = changed(folder, tmp_path / "out", CHANGED, tmp_path / "wanted")
    assert report.reused >= len(SHAPES) - 4  # but for what the kernel copied, whose checksum nobody knows


@pytest.mark.parametrize("name", ["mergec.json", "README.md", "model-00001-of-00003.safetensors"])
@pytest.mark.parametrize("kind", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_no_file_where_a_file_was(name: str, kind: Callable[[Path], None], folder: Path, tmp_path: Path) -> None:
    """A pipe keeps nobody waiting; and what stands there now is none of an output's files."""
    out = tmp_path / "out"
    mergec.run(plan_of(folder), out)
    (out / name).unlink()
    kind(out / name)
    for force, code in ((False, "E0601"), (True, "E0608")):
        with pytest.raises(mergec.MergecError, match=code):
            mergec.run(plan_of(folder), out, force=force)


DEEP = '{"weights": ' * 900 + "1" + "}" * 900


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", "[" * 100_000, DEEP),
        *('{"weights": 3, "tensors": {}}', '{"weights": {"../x": [1, 2, 3, 4]}, "tensors": {}}'),
    ],
)
@pytest.mark.parametrize("sealed", [False, True])
def test_a_provenance_file_of_another_kind(text: str, sealed: bool, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mergec.run(plan_of(folder), out)
    (out / "mergec.json").write_text(sealed_text(text) if sealed else text)
    assert examine(str(out), plan_of(folder)) is None
    assert changed(folder, out, RECIPE, tmp_path / "wanted").reused == 0


@pytest.mark.parametrize("name", ["a\0", "\ud800", "a/../b", "/a"])
def test_a_weight_file_whose_name_no_file_can_have(name: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mergec.run(plan_of(folder), out)
    record = json.loads((out / "mergec.json").read_text())
    del record["record_sha256"]
    record["weights"][name] = [1, 2, 3, 4]
    (out / "mergec.json").write_text(sealed_text(json.dumps(record)))
    assert examine(str(out), plan_of(folder)) is None


def test_another_version_takes_over_nothing_and_says_so(folder: Path, tmp_path: Path) -> None:
    mergec.run(plan_of(folder), tmp_path / "out")
    progress = Quiet()
    report = mergec.run(plan_of(folder, version="1"), tmp_path / "out", force=True, progress=progress)
    assert report.reused == 0
    why = "it was made with another version of mergec"
    assert progress.notices == (f"taking over nothing from the earlier output: {why}",)


def test_other_code_of_mergec_itself_makes_anew_what_is_computed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = merged(plan_of(folder), tmp_path / "out")
    for module in (content, extension_code):
        monkeypatch.setattr(module, "own_code", lambda: "another")
    progress = Quiet()
    assert mergec.run(plan_of(folder), tmp_path / "out", force=True, progress=progress).reused == 1
    assert progress.notices[1] == "making anew what was made by code that has changed: mergec's own code"
    assert weights(tmp_path / "out") == wanted
    assert mergec.run(plan_of(folder), tmp_path / "out").unchanged


def test_infinities_of_an_earlier_output_still_count(folder: Path, tmp_path: Path) -> None:
    bad, out = RECIPE + "head = 1e38*a*1e38\n", tmp_path / "out"
    counts = mergec.run(plan_of(folder, bad), out).outcome.non_finite
    assert counts["head.weight"]
    assert mergec.run(plan_of(folder, bad), out).outcome.non_finite == counts
    other = bad.replace("0.5*a + 0.5*b", "0.4*a + 0.6*b")
    assert mergec.run(plan_of(folder, other), out, force=True).outcome.non_finite == counts
    strict = other.replace('18kB"', '18kB", on_nonfinite="error"')
    for force in (False, True):
        with pytest.raises(mergec.MergecError, match=r"E0614|E0601"):
            mergec.run(plan_of(folder, strict), out, force=force)


def test_moved_layers_are_found_by_what_they_are(folder: Path, tmp_path: Path) -> None:
    """Keys tell what a tensor is, not what it is called."""
    out = tmp_path / "out"
    first = "layers[0] = 0.3*a.layers[1] + b.layers[1]\n"
    second = "layers[5] = 0.3*a.layers[1] + b.layers[1]\n"
    mergec.run(plan_of(folder, "* = base\n" + first), out)
    report = changed(folder, out, "* = base\n" + second, tmp_path / "wanted")
    assert report.reused == len(SHAPES) - 3  # three that were computed have moved, layer 0 is the base's again


def test_what_would_be_redone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = tmp_path / "r.mrg", tmp_path / "out"
    lets = "".join(f'let {label} = model("{folder}/{label}.safetensors")\n' for label in ("base", "a", "b"))

    def explained(text: str) -> str:
        recipe.write_text(lets + text)
        assert main(["--explain", str(recipe), "-o", str(out), "--device", "cpu"]) == 0
        return capsys.readouterr().out.partition("\ntarget\n")[2]

    assert explained(RECIPE) == "  there is nothing yet: all 20 tensors are to be made\n"
    assert main([str(recipe), "-o", str(out), "--device", "cpu", "-q"]) == 0
    assert explained(RECIPE) == "  nothing to do: it is what the recipe makes\n"
    text = explained(CHANGED)
    assert text.startswith("  to be made  3 of 20 tensors: layers[3].k.weight, layers[3].norm.weight")
    assert "  taken over  17 tensors of the earlier output" in text
