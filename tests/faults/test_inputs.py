"""Inputs that change: before, during and at the end of a run; a coded error, and no output."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import make
from mergec.grammar.diagnostic import Exit, MergecError
from mergec.runtime.api import compile
from mergec.runtime.files.inputs import Inputs
from tiny_plan import planned


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def _written(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"1234")
    os.utime(path, ns=(10**18, 10**18 + 1))


def _replaced(path: Path) -> None:
    """By another file of the same size and time."""
    before = path.stat()
    shutil.copyfile(path, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)
    _settle(path, before)


def _linked(path: Path) -> None:
    before = path.stat()
    os.link(path, path.with_suffix(".link"))
    _settle(path, before)


def _settle(path: Path, before: os.stat_result) -> None:
    """Sets the time of writing back, and sees that of the last change of status go on: some clocks
    tick slowly."""
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _removed(path: Path) -> None:
    path.unlink()


class _At:
    """A `Progress` that does something to a file at the first bytes, or after the last."""

    def __init__(self, change: Callable[[], None], when: str, total: int) -> None:
        self._change, self._when, self._left = change, when, total

    def tensor(self, index: int) -> None: ...

    def live(self, host: int, device: int) -> None: ...

    def begins(self, *_: object) -> None: ...

    def moved(self, read: int, written: int) -> None:  # noqa: ARG002
        self._left -= written
        if self._when == "during" or (self._when == "at the end" and self._left <= 0):
            self._when = ""
            self._change()


@pytest.mark.parametrize("when", ["before", "during", "at the end"])
@pytest.mark.parametrize("recipe", ["copy", "linear"])
@pytest.mark.parametrize(
    ("change", "code"),
    [(_truncated, "E0606"), (_written, "E0606"), (_replaced, "E0606"), (_linked, "E0606"), (_removed, "E0611")],
)
def test_change(tmp_path: Path, change: Callable[[Path], None], code: str, recipe: str, when: str) -> None:
    folder = make(tmp_path)
    compiled = compile(folder / f"{recipe}.mrg", device="cpu", lanes=1)
    path = folder / "a.safetensors"
    if when == "before":
        change(path)
    with pytest.raises(MergecError) as caught:
        compiled.run(tmp_path / "out", progress=_At(lambda: change(path), when, compiled.plan.writes))
    (found,) = caught.value.diagnostics
    assert caught.value.exit == Exit.INPUT
    assert found.code in ({code, "E0607"} if when == "during" and change is _truncated else {code})
    assert found.file == str(path)
    assert not (tmp_path / "out").exists()


def test_another_file_in_its_place_is_found_when_it_is_opened_again(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(b"0123456789")
    view = memoryview(bytearray(4))
    with Inputs([planned(path) for path in paths], limit=1) as inputs:
        inputs.read_into(0, 0, view)
        _replaced(paths[0])
        inputs.read_into(1, 0, view)
        with pytest.raises(MergecError, match="another file has taken its place"):
            inputs.read_into(0, 0, view)


def test_inputs_that_trade_places_before_the_run(tmp_path: Path) -> None:
    """Sizes and times are the same; which file of the disk it is is not."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make(tmp_path / name)
    recipe = tmp_path / "r.mrg"
    recipe.write_text('let a = model("a/a.safetensors")\nlet b = model("b/a.safetensors")\n* = a - b\n')
    files = [tmp_path / name / "a.safetensors" for name in ("a", "b")]
    for _ in range(3000):
        for path in files:
            os.utime(path, ns=(10**18, 10**18))
        if files[0].stat().st_ctime_ns == files[1].stat().st_ctime_ns:
            break
    else:
        pytest.skip("this file system's clock tells them apart")
    compiled = compile(recipe, device="cpu")
    for old, new in (("a", "t"), ("b", "a"), ("t", "b")):
        (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(MergecError, match="another file has taken its place") as caught:
        compiled.run(tmp_path / "out")
    assert caught.value.diagnostics[0].code == "E0606"
    assert not (tmp_path / "out").exists()
