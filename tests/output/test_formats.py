"""The seam for output formats: another format is a record, and all that is behind it makes do with
that.

The format here has a mark at the front, tensors at multiples of 64, numpy's names of dtypes, and
the table of tensors at the end.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mergec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mergec.compiler.checkpoint.catalog import CatalogError, StoredTensor
from mergec.compiler.checkpoint.dtypes import SIZES
from mergec.compiler.pack.format import FileTensor, OutputFormat, Placement
from mergec.compiler.plan.codec import FORMAT, from_json, to_json
from mergec.compiler.plan.plan import FixedBytes, Plan, PlannedOutput
from mergec.compiler.version import __version__
from mergec.runtime.execute.executor import Cancelled
from mergec.runtime.files.opening import as_it_is
from mergec.runtime.formats import outputs
from mergec.runtime.formats.outputs import Reader
from mergec.runtime.formats.safetensors import Header
from mergec.runtime.resume import keeper
from mergec.runtime.verify.report import Verdict
from profiles import examples
from resume_models import CHANGED, RECIPE, SHAPES, plan_of, write_models
from safetensors.numpy import load_file
from stopping import Stop

MARK = b"TABLE AT THE END"
DTYPES = {"F32": "<f4", "F16": "<f2"}


def _place(tensors: Sequence[FileTensor], metadata: Mapping[str, str]) -> Placement:
    starts, end, table = [], len(MARK), {}
    for tensor in tensors:
        starts.append(-(-end // 64) * 64)
        end = starts[-1] + tensor.nbytes
        table[tensor.name.upper()] = (DTYPES[tensor.dtype], tensor.shape, starts[-1])
    text = json.dumps([dict(metadata), table]).encode()
    foot = text + len(text).to_bytes(8, "little")
    return Placement(tuple(tensors), tuple(starts), (FixedBytes(0, MARK), FixedBytes(end, foot)), end + len(foot))


TABLED = OutputFormat("tabled", "weights", ".tbl", False, DTYPES, {"made": "here"}, _place)


def read(path: Path) -> tuple[dict[str, str], dict[str, Any], bytes]:
    """A file's metadata, its table and all of it."""
    raw = path.read_bytes()
    assert raw.startswith(MARK)
    said, table = json.loads(raw[len(raw) - 8 - int.from_bytes(raw[-8:], "little") : -8])
    return said, table, raw


def load(out: Path) -> dict[str, np.ndarray[Any, Any]]:
    """All tensors of a file, or of the files of a folder."""
    arrays = {}
    for path in [out] if out.is_file() else sorted(out.glob("*.tbl")):
        _, table, raw = read(path)
        for name, (dtype, shape, start) in table.items():
            arrays[name.lower()] = np.frombuffer(raw, dtype, math.prod(shape), start).reshape(shape)
    return arrays


def _header(path: str) -> Header:
    try:
        said, table, _ = read(Path(path))
    except (AssertionError, ValueError):
        raise CatalogError("E0410", "no table at its end", file=path) from None
    tensors = {}
    for name, (dtype, shape, start) in table.items():
        own = next(k for k, v in DTYPES.items() if v == dtype)
        end = start + np.dtype(dtype).itemsize * math.prod(shape)
        tensors[name.lower()] = StoredTensor(name.lower(), own, tuple(shape), 0, start, end)
    return Header(tensors, said, as_it_is(path, os.stat(path)))


@pytest.fixture
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What outputs are read back with knows the format."""
    monkeypatch.setattr(outputs, "READERS", (*outputs.READERS, Reader(TABLED, _header)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models") / "m")


def tabled(folder: Path, recipe: str = RECIPE, **options: Any) -> Plan:
    """A plan in the format, as another process would get it."""
    plan = plan_of(folder, recipe, __version__, format=TABLED, **options)
    assert from_json(to_json(plan)) == plan
    return plan


def same(out: Path, folder: Path, reference: Path, recipe: str = RECIPE) -> None:
    """Sees that the output holds, bit by bit, the tensors of a merge into safetensors."""
    mergec.run(plan_of(folder, recipe), reference)
    wanted = {n: t for path in reference.glob("*.safetensors") for n, t in load_file(path).items()}
    found = load(out)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].tobytes() == tensor.tobytes(), name


def gaps_are_zeros(path: Path) -> None:
    _, table, raw = read(path)
    ends = [(start, start + np.dtype(d).itemsize * math.prod(s)) for d, s, start in table.values()]
    for (_, end), (start, _) in itertools.pairwise([(0, len(MARK)), *sorted(ends)]):
        assert start % 64 == 0
        assert raw[end:start] == bytes(start - end)


@pytest.mark.parametrize("format", [*(reader.format for reader in outputs.READERS), TABLED], ids=lambda f: f.name)
@examples(40)
@given(sizes=st.lists(st.tuples(st.sampled_from(sorted(DTYPES)), st.integers(0, 3000)), max_size=9))
def test_every_byte_has_one_use(format: OutputFormat, sizes: list[tuple[str, int]]) -> None:
    """Every format's files: all tensors are there, and nothing lies over anything else or
    outside."""
    tensors = [FileTensor(f"t{k}.ü", d, (n,), n * SIZES[d], ()) for k, (d, n) in enumerate(sizes)]
    placed = format.place(tensors, {"a": "b"})
    assert sorted(placed.tensors, key=lambda t: t.name) == tensors
    used = [(at, at + t.nbytes) for at, t in zip(placed.starts, placed.tensors, strict=True)]
    used = sorted(used + [(f.start, f.start + len(f.data)) for f in placed.fixed])
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(used))
    assert (min(start for start, _ in used), max(end for _, end in used)) == (0, placed.size)
    assert all(at % SIZES[t.dtype] == 0 for at, t in zip(placed.starts, placed.tensors, strict=True))


def test_the_plan_s_text_keeps_every_byte(folder: Path) -> None:
    plan = tabled(folder)
    every = PlannedOutput("x", 256, (FixedBytes(0, bytes(range(256))),))
    assert from_json(to_json(replace(plan, outputs=(every,)))).outputs == (every,)
    with pytest.raises(ValueError, match="not a plan of format"):
        from_json(to_json(plan).replace(f'"format": {FORMAT}', f'"format": {FORMAT - 1}', 1))


@pytest.mark.parametrize("settings", ['shard_size="18kB"', 'dtype="float16"', 'shard_size="18kB", dtype="float16"'])
def test_a_merge_into_another_format(settings: str, folder: Path, tmp_path: Path) -> None:
    recipe = RECIPE.replace('shard_size="18kB"', settings)
    plan = tabled(folder, recipe)
    mergec.run(plan, tmp_path / "out")
    same(tmp_path / "out", folder, tmp_path / "reference", recipe)
    count = len(plan.outputs)
    names = [f"weights-{k + 1:05d}-of-{count:05d}.tbl" for k in range(count)] if count > 1 else ["weights.tbl"]
    assert (count > 1) == ("shard" in settings)
    assert sorted(os.listdir(tmp_path / "out")) == ["README.md", "mergec.json", *names]
    for name in names:
        gaps_are_zeros(tmp_path / "out" / name)
        assert read(tmp_path / "out" / name)[0] == {"made": "here"}


def test_one_file_of_another_format(folder: Path, tmp_path: Path) -> None:
    mergec.run(tabled(folder, single=True), tmp_path / "out.tbl")
    same(tmp_path / "out.tbl", folder, tmp_path / "reference")
    assert read(tmp_path / "out.tbl")[0].keys() == {"made", "mergec"}


@pytest.mark.usefixtures("readable")
def test_what_one_file_may_replace(folder: Path, tmp_path: Path) -> None:
    out, plan = tmp_path / "out.tbl", tabled(folder, single=True)
    out.write_bytes(b"my notes")
    with pytest.raises(mergec.MergecError, match=r"it is no tabled file \(no table at its end\)"):
        mergec.run(plan, out, force=True)
    assert out.read_bytes() == b"my notes"
    out.unlink()
    for _ in range(2):
        mergec.run(plan, out, force=True)
    same(out, folder, tmp_path / "reference")


def test_a_run_that_was_stopped_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    plan, cancel = tabled(folder), threading.Event()
    with pytest.raises(Cancelled):
        mergec.run(plan, tmp_path / "out", progress=Stop(9, cancel), cancel=cancel)
    assert mergec.run(plan, tmp_path / "out").resumed > 0
    same(tmp_path / "out", folder, tmp_path / "reference")


@pytest.mark.usefixtures("readable")
def test_an_earlier_output_is_taken_over(folder: Path, tmp_path: Path) -> None:
    mergec.run(tabled(folder), tmp_path / "out")
    again = mergec.run(tabled(folder), tmp_path / "out", force=True)
    assert again.unchanged
    changed = mergec.run(tabled(folder, CHANGED), tmp_path / "out", force=True)
    assert changed.reused == len(SHAPES) - 3
    same(tmp_path / "out", folder, tmp_path / "reference", CHANGED)


def test_an_earlier_output_that_nothing_reads_is_made_anew(folder: Path, tmp_path: Path) -> None:
    for recipe in (RECIPE, CHANGED):
        report = mergec.run(tabled(folder, recipe), tmp_path / "out", force=True)
        assert (report.reused, report.unchanged) == (0, False)
    same(tmp_path / "out", folder, tmp_path / "reference", CHANGED)


@pytest.mark.usefixtures("readable")
def test_verify_reads_it(folder: Path, tmp_path: Path) -> None:
    plan = tabled(folder)
    mergec.run(plan, tmp_path / "out")
    found = mergec.verify(tmp_path / "out", rerun="all")
    assert [c.name for c in found.checks if c.verdict is Verdict.OK] == [
        *("headers", "record", "tensors", "checksums", "non-finite", "inputs", "recipe", "documents", "rerun")
    ]
    assert {d.code for d in found.diagnostics} == {"E0406"}  # as a model it is opened where inputs can be of its format
    with (tmp_path / "out" / plan.outputs[1].name).open("r+b") as file:
        file.seek(plan.tensors[-1].start)
        file.write(b"\xff")
    assert {d.code for d in mergec.verify(tmp_path / "out").diagnostics} == {"E0406", "E0652"}
