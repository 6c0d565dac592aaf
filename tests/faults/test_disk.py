"""Disks that are full, fail or may not be written to: a coded error with a fix, and an old output
as it was."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import sys
from pathlib import Path

import pytest
from commands import COPY, make, mergec
from mergec.grammar.diagnostic import Exit, MergecError
from mergec.runtime.api import compile

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
"""Numbers of the Linux kernel."""


@pytest.mark.parametrize("recipe", ["copy", "linear"])
@pytest.mark.parametrize(
    ("number", "code", "message", "help"),
    [
        (errno.ENOSPC, "E0609", "no space left for", "free some"),
        (errno.EDQUOT, "E0609", "your quota is used up", "free some"),
        (errno.EFBIG, "E0610", "file too large", "smaller files"),
        (errno.EIO, "E0610", "input/output error", "the disk fails"),
    ],
)
@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_faults_in_mid_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    number: int,
    code: str,
    message: str,
    help: str,
    call: str,
) -> None:
    make(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("old")
    compiled = compile(tmp_path / f"{recipe}.mrg", device="cpu", lanes=1)
    real, calls = getattr(os, call), 0

    def fails(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls >= 2:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    def no_kernel_copy(*_: object) -> int:
        raise OSError(errno.EXDEV, "")

    monkeypatch.setattr(os, call, fails)
    monkeypatch.setattr(os, "copy_file_range", no_kernel_copy)
    with pytest.raises(MergecError) as caught:
        compiled.run(out, force=True)
    monkeypatch.undo()
    found = caught.value.diagnostics[0]
    assert (found.code, caught.value.exit) == (code, Exit.RUN)
    assert message in found.message
    assert found.help[0].startswith(help)
    assert {p.name: p.read_text() for p in out.iterdir()} == {"config.json": "old"}
    compiled.run(out, force=True)
    assert (out / "model.safetensors").exists()


def test_limit_on_the_size_of_files(tmp_path: Path) -> None:
    make(tmp_path)
    done = mergec(
        "copy.mrg",
        *("-o", "out"),
        folder=tmp_path,
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert done.returncode == 4
    assert b"error[E0610]: can't write `" in done.stderr
    assert b": file too large\n" in done.stderr
    assert b'smaller files: `output(shard_size="1GB")`' in done.stderr
    assert not (tmp_path / "out").exists()


def _like_others() -> None:
    """Takes from root the right to pass over permissions."""
    for capability in CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_folders_and_files_without_permission(tmp_path: Path) -> None:
    make(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(0o555)
    done = mergec("copy.mrg", "-o", "closed/out", folder=tmp_path, before=_like_others)
    first = done.stderr.split(b"\n")[0]
    assert (done.returncode, first) == (4, f"error[E0602]: folder `{closed}` is not writable".encode())
    (tmp_path / "a.safetensors").chmod(0)
    done = mergec("copy.mrg", "-o", "out", folder=tmp_path, before=_like_others)
    assert (done.returncode, done.stderr[:12]) == (3, b"error[E0403]")
    (tmp_path / "copy.mrg").chmod(0)
    done = mergec("copy.mrg", "-o", "out", folder=tmp_path, before=_like_others)
    assert (done.returncode, b"the recipe can't be read: permission denied" in done.stderr) == (3, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("target", "code"), [("file/out", "E0602"), ("missing/out", "E0602"), ("dangling/out", "E0602"), ("file", "E0601")]
)
def test_places_where_no_output_can_be(tmp_path: Path, target: str, code: str) -> None:
    make(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    done = mergec("copy.mrg", "-o", target, folder=tmp_path)
    assert (done.returncode, done.stderr[:12]) == (4, f"error[{code}]".encode())
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("to", ["nowhere", "folder"])
def test_a_link_as_the_target(tmp_path: Path, to: str) -> None:
    """It is an existing target, which `--force` neither replaces nor follows."""
    make(tmp_path, copy=COPY)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    (tmp_path / "out").symlink_to(to)
    assert mergec("copy.mrg", "-o", "out", folder=tmp_path).returncode == 4
    for target in ("out", "out/"):
        done = mergec("copy.mrg", "-o", target, "--force", folder=tmp_path)
        assert (done.returncode, b"it is a link, to `" + to.encode() in done.stderr) == (2, True)
    assert os.readlink(tmp_path / "out") == to
    assert os.listdir(tmp_path / "folder") == ["thesis.txt"]


def test_space_is_looked_at_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    compiled = compile(tmp_path / "copy.mrg", device="cpu")
    needed = sum(o.size for o in compiled.plan.outputs) + sum(len(d.text.encode()) for d in compiled.plan.documents)
    real = os.statvfs(tmp_path)

    class Full:
        f_bavail, f_frsize = 1, 4096

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    monkeypatch.setattr(os, "statvfs", lambda _: Full())
    with pytest.raises(MergecError) as caught:
        compiled.run(tmp_path / "out")
    found = caught.value.diagnostics[0]
    assert found.code == "E0604"
    assert found.message == f"the output needs {needed:,} bytes and `{tmp_path}` has 4,096 bytes free"
    assert not (tmp_path / "out").exists()
