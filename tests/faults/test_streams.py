"""Standard streams that are closed, full, without a reader, not in UTF-8: the merge is done all the
same."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from commands import make, mergec
from mergec.cli.terminal.progress import ProgressLine
from mergec.runtime.api import compile

MADE = ["README.md", "mergec.json", "model.safetensors"]


def _closed(*numbers: int) -> None:
    for number in numbers:
        os.close(number)


@pytest.mark.parametrize("numbers", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_closed_streams(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    make(tmp_path)
    done = mergec("copy.mrg", "-o", "out", folder=tmp_path, before=lambda: _closed(*numbers))
    assert done.returncode == 0
    assert sorted(os.listdir(tmp_path / "out")) == MADE
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert weights[-4 * 2007 :] == (tmp_path / "a.safetensors").read_bytes()[-4 * 2007 :]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_full_streams(tmp_path: Path) -> None:
    make(tmp_path)
    with open("/dev/full", "wb") as full:
        done = mergec("--check", "copy.mrg", folder=tmp_path, stdout=full)
        assert done.returncode == 4
        assert done.stderr == b"error[E0640]: standard output can't be written: no space left on device\n"
        done = mergec("copy.mrg", "-o", "out", folder=tmp_path, stderr=full)
        assert done.returncode == 0
        assert done.stdout.startswith(b"wrote ")
        assert mergec("nothing.mrg", "-o", "out", folder=tmp_path, stderr=full).returncode == 1


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_is_gone_does_not_stop_a_merge(tmp_path: Path, stream: str) -> None:
    make(tmp_path)
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as pipe:
        done = mergec("copy.mrg", "-o", "out", folder=tmp_path, **{stream: pipe})  # type: ignore[arg-type]
    assert done.returncode == 0
    assert sorted(os.listdir(tmp_path / "out")) == MADE


class _Broken(io.StringIO):
    tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise BrokenPipeError(text)

    def isatty(self) -> bool:
        return True


def test_progress_is_no_reason_to_stop(tmp_path: Path) -> None:
    plan = compile(make(tmp_path) / "copy.mrg", device="cpu").plan
    stream = _Broken()
    line = ProgressLine(plan, stream)
    line.begins(plan, ["taking over nothing"])
    line._shown = 0.0
    line.tensor(0)
    line.moved(1, 1)
    line.close()
    assert stream.tried == 3


def test_progress_fits_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return 0

    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((20, 5)))
    stream = Narrow()
    line = ProgressLine(compile(make(tmp_path) / "copy.mrg", device="cpu").plan, stream)
    line._shown = 0.0
    line.moved(1, 1)
    (shown,) = stream.getvalue().split("\r\x1b[K")[1:]
    assert len(shown) == 19


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_stream_cannot_spell_is_escaped(tmp_path: Path, encoding: str) -> None:
    make(tmp_path, größe='let a = model("a.safetensors")\n"*" = größe("模")\n')
    done = mergec("größe.mrg", "--check", folder=tmp_path, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 1
    assert b"E0001" not in done.stderr
    assert "größe".encode(encoding, "backslashreplace") in done.stderr
    done = mergec("--explain", "--method", "linear", folder=tmp_path, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0


def test_colours(tmp_path: Path) -> None:
    make(tmp_path)
    assert b"\x1b[" not in mergec("no.mrg", "--check", folder=tmp_path).stderr
    assert b"\x1b[" not in mergec("no.mrg", "--check", folder=tmp_path, env={"NO_COLOR": "1"}).stderr
    for_people = mergec("copy.mrg", "--check", "--set", "output.dtype=x", "--color=always", folder=tmp_path)
    assert b"\x1b[" in for_people.stderr
