"""Journals that no crash leaves: with right checksums and odd content, or no files at all. They are
as if absent."""

from __future__ import annotations

import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mergec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mergec.compiler.plan.plan import Plan
from mergec.runtime.execute.executor import Cancelled
from mergec.runtime.resume import journal, keeper
from mergec.runtime.session.outlook import look
from profiles import examples
from resume_models import Told, merged, plan_of, weights, write_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    return plan_of(folder)


@pytest.fixture(scope="module")
def wanted(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return merged(plan, tmp_path_factory.mktemp("wanted") / "out")


@pytest.fixture(scope="module")
def stopped(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The partial folder of a run that was stopped."""
    place, cancel = tmp_path_factory.mktemp("stopped"), threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "SECONDS", 0.0)
        with pytest.raises(Cancelled):
            mergec.run(plan, place / "out", progress=Told(12, cancel.set), cancel=cancel)
    return place / ".out.partial"


def line(text: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text), text)


def lines(partial: Path) -> list[dict[str, Any]]:
    return [json.loads(found[9:]) for found in (partial / "journal").read_bytes().splitlines()]


def write(partial: Path, values: list[Any]) -> None:
    (partial / "journal").write_bytes(b"".join(line(json.dumps(value).encode()) for value in values))


ODD: dict[str, bytes] = {
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"tensor":' * 100_000,
    "a list": b"[]",
    "a string": b'"tensor"',
    "null": b"null",
    "nothing": b"",
    "not UTF-8": b'{"tensor":0,"checksum":"\xff","non_finite":0}',
    "UTF-16": '{"tensor":0,"checksum":"0","non_finite":0}'.encode("utf-16") + b" ",
    "past the plan": b'{"tensor":20,"checksum":"0000000000000000","non_finite":0}',
    "far past the plan": b'{"tensor":9223372036854775807,"checksum":"0000000000000000","non_finite":0}',
    "beyond 64 bits": b'{"tensor":1%s,"checksum":"0000000000000000","non_finite":0}' % (b"0" * 4000),
    "more digits than Python reads": b'{"tensor":1%s,"checksum":"0000000000000000","non_finite":0}' % (b"0" * 5000),
    "negative": b'{"tensor":-1,"checksum":"0000000000000000","non_finite":0}',
    "a fraction": b'{"tensor":1.5,"checksum":"0000000000000000","non_finite":0}',
    "NaN": b'{"tensor":NaN,"checksum":"0000000000000000","non_finite":0}',
    "infinite": b'{"tensor":0,"checksum":"0000000000000000","non_finite":1e999}',
    "true": b'{"tensor":true,"checksum":"0000000000000000","non_finite":0}',
    "a string as the index": b'{"tensor":"1","checksum":"0000000000000000","non_finite":0}',
    "a number as the checksum": b'{"tensor":1,"checksum":0,"non_finite":0}',
    "a list as the checksum": b'{"tensor":1,"checksum":[],"non_finite":0}',
    "more that is not finite than there is": b'{"tensor":1,"checksum":"0","non_finite":999999999}',
    "less than none": b'{"tensor":1,"checksum":"0","non_finite":-1}',
    "a key too many": b'{"tensor":1,"checksum":"0","non_finite":0,"more":0}',
    "a key too few": b'{"tensor":1,"checksum":"0"}',
}


def run_again(partial: Path, plan: Plan, place: Path) -> tuple[mergec.Report, list[str]]:
    """Runs the plan at a copy of the partial folder."""
    if not (place / ".out.partial").exists():
        shutil.copytree(partial, place / ".out.partial")
    told = Told()
    return mergec.run(plan, place / "out", progress=told), told.notices


@pytest.mark.parametrize("name", ODD)
def test_odd_lines(name: str, stopped: Path, plan: Plan, wanted: dict[str, bytes], tmp_path: Path) -> None:
    partial = Path(shutil.copytree(stopped, tmp_path / ".out.partial"))
    found = (partial / "journal").read_bytes().splitlines(keepends=True)
    assert len(found) > 4
    for changed in ([line(ODD[name]), *found[1:]], [*found, line(ODD[name])], [found[0], line(ODD[name]), *found[2:]]):
        (partial / "journal").write_bytes(b"".join(changed))
        assert look(plan, str(tmp_path / "out")).resumed == 0
    report, notices = run_again(stopped, plan, tmp_path)
    assert report.resumed == 0
    assert notices[0].startswith("starting over, not from where an earlier run was stopped: its journal ")
    assert weights(tmp_path / "out") == wanted


@pytest.mark.parametrize("key", ["made_with", "inputs", "tensors", "files"])
def test_odd_heads(key: str, stopped: Path, plan: Plan, wanted: dict[str, bytes], tmp_path: Path) -> None:
    partial = Path(shutil.copytree(stopped, tmp_path / ".out.partial"))
    head, *entries = lines(partial)
    for value in (None, 3, [3], "x", [[]], [["a"]], [[1, 2]], [{"a": 1}], {"a": 1}, {"a": {}}, {"a": "b"}):
        write(partial, [{**head, key: value}, *entries])
        assert look(plan, str(tmp_path / "out")).resumed == 0
    report, notices = run_again(stopped, plan, tmp_path)
    assert (report.resumed, len(notices)) == (0, 1)
    assert weights(tmp_path / "out") == wanted


def test_a_tensor_noted_twice(stopped: Path, plan: Plan, wanted: dict[str, bytes], tmp_path: Path) -> None:
    """As happens where it was damaged and made again: the last entry counts."""
    partial = Path(shutil.copytree(stopped, tmp_path / ".out.partial"))
    head, *entries = lines(partial)
    stale = {**entries[0], "checksum": "0" * 16}
    write(partial, [head, stale, *entries, entries[0]])
    assert run_again(stopped, plan, tmp_path)[0].resumed == len(entries)
    assert weights(tmp_path / "out") == wanted


@pytest.mark.parametrize("name", ["journal", "out", "out/model-00001-of-00003.safetensors"])
@pytest.mark.parametrize("kind", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/nowhere/at/all"), Path.touch])
def test_no_file_where_a_file_was(
    name: str,
    kind: Callable[[Path], None],
    stopped: Path,
    plan: Plan,
    wanted: dict[str, bytes],
    tmp_path: Path,
) -> None:
    partial = Path(shutil.copytree(stopped, tmp_path / ".out.partial"))
    assert (partial / "out" / plan.outputs[0].name).name == "model-00001-of-00003.safetensors"
    path = partial / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    kind(path)
    look(plan, str(tmp_path / "out"))
    run_again(stopped, plan, tmp_path)
    assert weights(tmp_path / "out") == wanted
    assert os.listdir(tmp_path) == ["out"]


def test_a_journal_that_is_a_link(stopped: Path, plan: Plan, wanted: dict[str, bytes], tmp_path: Path) -> None:
    partial = Path(shutil.copytree(stopped, tmp_path / ".out.partial"))
    (partial / "journal").rename(tmp_path / "elsewhere")
    (partial / "journal").symlink_to("../elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    assert run_again(stopped, plan, tmp_path)[0].resumed == 0
    assert weights(tmp_path / "out") == wanted
    assert (tmp_path / "elsewhere").read_bytes() == before


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63 - 2, max_value=2**64 + 2)
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=8)
    | st.sampled_from(["tensor", "checksum", "non_finite", "0" * 16, "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["tensor", "checksum", "non_finite", "made_with", "inputs", "tensors", "files", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@examples(80)
@given(data=st.data())
def test_drawn_journals(
    data: st.DataObject, stopped: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever stands in it, a journal is read or is not; what is read are tensors of the plan."""
    values: list[Any] = lines(stopped)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(values) - 1))
        kind = data.draw(st.sampled_from(["other", "field", "without", "again", "none"]))
        here = values[at]
        if kind == "other":
            values[at] = data.draw(JSON)
        elif kind == "again":
            values.insert(data.draw(st.integers(0, len(values))), here)
        elif kind == "none":
            values[at:] = []
            break
        elif isinstance(here, dict) and here:
            name = data.draw(st.sampled_from(sorted(here)))
            values[at] = {k: v for k, v in here.items() if k != name}
            if kind == "field":
                values[at][name] = data.draw(JSON)
    path = tmp_path_factory.getbasetemp() / "drawn-journal"
    path.write_bytes(b"".join(line(json.dumps(value).encode()) for value in values))
    found = journal.read(str(path))
    if found is not None:
        journal.other(found.head, plan)
        assert all(type(e.tensor) is int and e.tensor >= 0 and type(e.checksum) is str for e in found.entries)
        assert all(type(e.non_finite) is int and e.non_finite >= 0 for e in found.entries)


@examples(40)
@given(data=st.binary(max_size=60), at=st.integers(0, 12))
def test_drawn_bytes(data: bytes, at: int, stopped: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = (stopped / "journal").read_bytes().splitlines(keepends=True)
    found.insert(min(at, len(found)), line(data))
    path = tmp_path_factory.getbasetemp() / "drawn-journal"
    path.write_bytes(b"".join(found))
    read = journal.read(str(path))
    assert read is None or journal.other(read.head, plan) is None
