"""Writes past the page cache: the same bytes as through it, and nothing lost where a system has
none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import mergec
import numpy as np
import pytest
from compiled import skip_without_a_compiler
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from mergec.compiler.plan.scratch import PAGE
from mergec.runtime.files import direct
from mergec.runtime.files.direct import LEAST, Direct
from mergec.runtime.machine.host import pages
from profiles import examples
from safetensors.numpy import load_file, save_file


@examples(30, HealthCheck.function_scoped_fixture)
@given(start=st.integers(0, 3 * PAGE), nbytes=st.integers(0, 2 * LEAST), align=st.booleans())
def test_only_whole_pages_go_directly(tmp_path: Path, start: int, nbytes: int, align: bool) -> None:
    if align:
        start, nbytes = start // PAGE * PAGE, nbytes // PAGE * PAGE
    path = tmp_path / "file"
    path.write_bytes(bytes(4 * LEAST))
    data = pages(4 * LEAST)
    data[:] = np.random.default_rng(0).integers(1, 255, data.size, np.uint8)
    files = Direct(lambda _, flags: os.open(path, os.O_WRONLY | flags), 4)
    done = files.write(0, start, data.data[:nbytes])
    files.close()
    suits = start % PAGE == 0 and nbytes % PAGE == 0 and nbytes >= LEAST
    assert done in {False, suits}  # a file system may refuse what would suit
    assert path.read_bytes()[start : start + nbytes] == (data[:nbytes].tobytes() if done else bytes(nbytes))


def test_a_copy_needs_no_numpy(tmp_path: Path) -> None:
    """Importing it takes as long as copying a gigabyte does."""
    skip_without_a_compiler()
    save_file({"a": np.arange(1 << 20, dtype=np.float32)}, tmp_path / "m.safetensors")
    program = f"""
import sys, mergec
compiled = mergec.compile('let m = model("{tmp_path}/m.safetensors")\\n* = m', device="cpu")
report = compiled.run("{tmp_path}/out")
assert not {{"torch", "numpy"}} & sys.modules.keys()
assert __import__("json").load(open("{tmp_path}/out/mergec.json"))["tensors"]["a"][1] is not None
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / "out" / "model.safetensors").stat().st_size >= 4 << 20


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_system_without(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every merge comes out the same where direct writes are refused, be it at the opening or
    later."""
    tensors = {"a": np.random.default_rng(0).standard_normal((700, 1024)).astype(np.float32), "b": np.ones(3)}
    save_file(tensors, tmp_path / "m.safetensors")
    recipes = {name: f'let m = model("m.safetensors")\n* = {x}' for name, x in (("computed", "2 * m"), ("copied", "m"))}
    monkeypatch.chdir(tmp_path)
    made = {}
    for refused in (False, True):
        if refused:

            def refuse(*_: object) -> None:
                raise OSError(number, os.strerror(number))

            monkeypatch.setattr(direct, "write_all", refuse)
        for name, recipe in recipes.items():
            mergec.compile(recipe, device="cpu").run(tmp_path / f"{name}-{refused}")
            file = tmp_path / f"{name}-{refused}" / "model.safetensors"
            made[name, refused] = file.read_bytes()
            factor = 2 if name == "computed" else 1
            assert all(np.array_equal(v, factor * tensors[k]) for k, v in load_file(file).items())
    assert all(made[name, True] == made[name, False] for name in recipes)


def test_a_full_disk_is_not_taken_for_a_system_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    path.touch()
    monkeypatch.setattr(direct, "write_all", full)
    files = Direct(lambda _, flags: os.open(path, os.O_WRONLY | flags), 4)
    if files.suits(0, LEAST):
        with pytest.raises(OSError, match="space"):
            files.write(0, 0, pages(LEAST).data)
    files.close()
