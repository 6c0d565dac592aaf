"""Inputs and writer: bytes in their places, and what goes wrong with names."""

from __future__ import annotations

import dataclasses
import errno
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mergec.compiler.plan.plan import Document, Extent, PlannedOutput, Tagalong
from mergec.grammar.diagnostic import Exit, MergecError
from mergec.runtime.files import syscalls
from mergec.runtime.files.inputs import Inputs
from mergec.runtime.output import writer
from mergec.runtime.output.writer import Writer
from tiny_plan import FIXED, MADE, PLAN, START, WEIGHTS, code, make, planned, tree

# --- inputs --------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Twelve files of 1000 random bytes."""
    paths = [tmp_path / f"in{i}" for i in range(12)]
    for i, path in enumerate(paths):
        path.write_bytes(random.Random(i).randbytes(1000))
    return paths


def test_reads_from_many_threads_with_few_open_files(files: list[Path]) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with Inputs([planned(path) for path in files], limit=3) as inputs:

        def read(job: int) -> bool:
            buffer = bytearray(100)
            inputs.read_into(job % 12, job % 900, memoryview(buffer))
            return buffer == files[job % 12].read_bytes()[job % 900 : job % 900 + 100]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(2000)))
        if before is not None:
            assert len(os.listdir("/proc/self/fd")) <= before + 3
        inputs.check()
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_changed_input(files: list[Path]) -> None:
    plan = [planned(path) for path in files]
    with Inputs(plan) as inputs:
        inputs.read_into(0, 0, memoryview(bytearray(1)))
        os.utime(files[0], ns=(1, 1))
        with pytest.raises(MergecError, match="has been written to since the plan was made") as caught:
            inputs.check()
        assert code(caught) == ("E0606", Exit.INPUT)
        files[1].write_bytes(b"x")
        with pytest.raises(MergecError, match="it had 1000 bytes when the plan was made and has 1 now") as caught:
            inputs.read_into(1, 0, memoryview(bytearray(1)))
        assert code(caught) == ("E0606", Exit.INPUT)
        files[2].unlink()
        with pytest.raises(MergecError, match="no such file or directory") as caught:
            inputs.read_into(2, 0, memoryview(bytearray(1)))
        assert code(caught) == ("E0611", Exit.INPUT)


def test_short_read_names_file_and_offset(files: list[Path]) -> None:
    with (
        Inputs([planned(files[0])]) as inputs,
        pytest.raises(MergecError, match="in0` ends early, at byte 1000") as caught,
    ):
        inputs.read_into(0, 990, memoryview(bytearray(11)))
    assert code(caught) == ("E0607", Exit.INPUT)


# --- writer --------------------------------------------------------------------------------------


def test_every_byte_in_its_place(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("hello")
    (tmp_path / "link.txt").symlink_to("note.txt")
    plan = dataclasses.replace(PLAN, tagalongs=(Tagalong(str(tmp_path / "link.txt"), "templates/tool.txt"),))
    make(tmp_path / "out", plan)
    assert tree(tmp_path / "out") == MADE | {"templates/tool.txt": b"hello"}
    assert not (tmp_path / "out" / "templates" / "tool.txt").is_symlink()


@pytest.mark.parametrize("in_kernel", [True, False])
def test_copy(tmp_path: Path, files: list[Path], in_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EXDEV, "cross-device")

    if not in_kernel:
        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    folder = tmp_path / "out"
    folder.mkdir()
    plan = dataclasses.replace(PLAN, documents=())
    with Inputs([planned(files[0])]) as inputs, Writer(str(folder), plan) as writer:
        writer.start()
        writer.copy(inputs, Extent(0, 100, 7), 0, START + 3)
        writer.copy(inputs, Extent(0, 0, 3), 0, START)
        writer.copy(inputs, Extent(0, 0, 0), 0, START)
        with pytest.raises(MergecError, match="ends early, at byte 1000") as caught:
            writer.copy(inputs, Extent(0, 998, 3), 0, START)
        assert code(caught) == ("E0607", Exit.INPUT)
        writer.copy(inputs, Extent(0, 0, 3), 0, START)
        writer.finish()
    content = files[0].read_bytes()
    assert tree(folder)["model.safetensors"] == WEIGHTS[:START] + content[:3] + content[100:107]


@pytest.mark.parametrize("sharing", [True, False])
def test_blocks_are_shared_where_files_lie_alike(
    tmp_path: Path, sharing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that shares is asked once for an input; one that doesn't gets the bytes past the
    page cache."""
    size, page, asked, copied = 1 << 20, 4096, [], []
    source = tmp_path / "in"
    source.write_bytes(random.Random(0).randbytes(size))
    kernel_copy = os.copy_file_range

    def share(*ranges: int) -> bool:
        asked.append(ranges)
        return sharing

    def copy(*ranges: int) -> int:
        copied.append(kernel_copy(*ranges))
        return copied[-1]

    monkeypatch.setattr(writer, "share", share)
    monkeypatch.setattr(os, "copy_file_range", copy)
    folder = tmp_path / "out"
    folder.mkdir()
    plan = dataclasses.replace(PLAN, documents=(), outputs=(PlannedOutput("o", 3 * size, FIXED),))
    alike = [(25 * page, 10 * page, 500_001), (5 * page, 300 * page, 300_000), (150 * page, 500 * page, page - 1)]
    with Inputs([planned(source)]) as inputs, Writer(str(folder), plan) as made:
        made.start()
        for start, to, nbytes in alike:
            made.copy(inputs, Extent(0, start, nbytes), 0, to)
        by_kernel = sum(copied)
        made.copy(inputs, Extent(0, 7, 300_000), 0, 200 * page)
    content, out = source.read_bytes(), (folder / "o").read_bytes()
    for start, to, nbytes in [*alike, (7, 200 * page, 300_000)]:
        assert out[to : to + nbytes] == content[start : start + nbytes]
    assert [ranges[1::2] for ranges in asked] == [(25 * page, 10 * page)]
    assert asked[0][4] == page
    if sharing:
        assert by_kernel == sum(nbytes for _, _, nbytes in alike)
    else:
        assert by_kernel == sum(nbytes % page for _, _, nbytes in alike)


def test_threads_write_large_ranges(tmp_path: Path) -> None:
    size = 8 << 20
    plan = dataclasses.replace(
        PLAN, documents=(), outputs=tuple(PlannedOutput(f"{i}.safetensors", START + size, FIXED) for i in range(2))
    )
    content = random.Random(0).randbytes(size)
    with Writer(str(tmp_path), plan) as writer, ThreadPoolExecutor(4) as pool:
        writer.start()
        jobs = [(file, at) for at in range(0, size, 1 << 19) for file in range(2)]
        list(pool.map(lambda job: writer.write(job[0], START + job[1], memoryview(content)[job[1] :][: 1 << 19]), jobs))
        writer.finish()
    for i in range(2):
        assert (tmp_path / f"{i}.safetensors").read_bytes() == WEIGHTS[:START] + content


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "", ".", "a//b", "a\0b", "..\\x"])
def test_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(MergecError) as caught:
        Writer(str(folder), dataclasses.replace(PLAN, outputs=(PlannedOutput(name, 100, FIXED),)))
    assert code(caught) == ("E0612", Exit.RUN)
    with Writer(str(folder), dataclasses.replace(PLAN, documents=(Document(name, ""),))) as writer:
        writer.start()
        with pytest.raises(MergecError) as caught:
            writer.finish()
        assert code(caught) == ("E0612", Exit.RUN)


def test_ranges_outside_the_data_are_a_bug(tmp_path: Path) -> None:
    with Writer(str(tmp_path), PLAN) as writer:
        writer.start()
        for start, data in ((START - 1, b"x"), (START + 10, b"x"), (START, b"01234567890")):
            with pytest.raises(ValueError, match="outside the data of model"):
                writer.write(0, start, memoryview(data))


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite

    def full(descriptor: int, data: Any, start: int) -> int:
        if not os.readlink(f"/proc/self/fd/{descriptor}").endswith("journal"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, start)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(MergecError, match=r"no space left for `.*model.safetensors`") as caught:
        make(tmp_path / "out")
    assert code(caught) == ("E0609", Exit.RUN)
    assert os.listdir(tmp_path) == []


def test_tagalong_that_is_gone(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, tagalongs=(Tagalong(str(tmp_path / "gone"), "gone"),))
    with pytest.raises(MergecError, match="gone`: no such file") as caught:
        make(tmp_path / "out", plan)
    assert code(caught) == ("E0611", Exit.INPUT)


# --- system calls --------------------------------------------------------------------------------


def test_exchange_swaps(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").mkdir()
    if syscalls.exchange(str(tmp_path / "a"), str(tmp_path / "b")):
        assert (tmp_path / "a").is_dir()
        assert (tmp_path / "b").read_text() == "a"
        with pytest.raises(FileNotFoundError):
            syscalls.exchange(str(tmp_path / "a"), str(tmp_path / "none"))


def test_reserve_gives_the_full_size(tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb") as file:
        if syscalls.reserve(file.fileno(), 100_000):
            assert os.fstat(file.fileno()).st_size == 100_000
        assert syscalls.reserve(file.fileno(), 0) is False
        syscalls.start_writeback(file.fileno())
