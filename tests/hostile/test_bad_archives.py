"""Archives of pickled checkpoints that are damaged, or made to be read in two ways: one code
each."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mergec.compiler.checkpoint.catalog import CatalogError
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.formats.pickled import archive as reader
from mergec.runtime.formats.pickled.header import read_pickle
from pickled_files import archive, saved, state, tensor

PICKLE = state(w=tensor())
GOOD = saved(PICKLE)
RECORDS = {"data.pkl": PICKLE, "byteorder": b"little", "data/0": bytes(8)}


def refusal(raw: bytes, tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(raw)
    with pytest.raises(CatalogError) as caught:
        read_pickle(str(path))
    assert caught.value.file == str(path)
    assert caught.value.message.isprintable()
    return caught.value.code, caught.value.message


def listed(raw: bytes, number: int = 0) -> int:
    """Where record `number` stands in the list of contents."""
    at = raw.index(b"PK\x01\x02")
    for _ in range(number):
        at = raw.index(b"PK\x01\x02", at + 4)
    return at


def with_field(at: int, form: str, value: int, raw: bytes = GOOD) -> bytes:
    size = struct.calcsize(form)
    return raw[:at] + struct.pack(form, value) + raw[at + size :]


def doubled() -> bytes:
    raw = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(raw, "w") as z:
        for name in ("data.pkl", "data/0", "data/0"):
            z.writestr(f"a/{name}", RECORDS[name])
    return raw.getvalue()


def large(**changes: int) -> bytes:
    """The same archive with a 64-bit end, whose fields are changed by name."""
    _, _, _, _, count, length, begin, _ = struct.unpack("<4s4H2LH", GOOD[-22:])
    at = begin + length
    sound = {"rest": 44, "disk": 0, "first": 0, "here": count, "count": count, "length": length, "begin": begin}
    f = {**sound, "at": at, **changes}
    numbers = (f["rest"], 45, 45, f["disk"], f["first"], f["here"], f["count"], f["length"], f["begin"])
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", *numbers)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, f["at"], 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return GOOD[:at] + end64 + locator + end


END = len(GOOD) - 22
FIRST = listed(GOOD)
FAULTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut in two": (lambda: GOOD[: len(GOOD) // 2], "no end of an archive"),
    "one byte short": (lambda: GOOD[:-1], "no end of an archive"),
    "beginning alone": (lambda: GOOD[:30], "no end of an archive"),
    "something after it": (lambda: GOOD + b"x", "no end of an archive"),
    "a comment": (lambda: archive(RECORDS, comment=b"x" * 22), "no end of an archive"),
    "a comment that is an end": (lambda: archive(RECORDS, comment=GOOD[-22:]), "does not end where"),
    "a length of a comment": (lambda: with_field(END + 20, "<H", 1), "comment"),
    "another disk": (lambda: with_field(END + 4, "<H", 1), "not sound"),
    "fewer records here": (lambda: with_field(END + 8, "<H", 1), "not sound"),
    "no records": (
        lambda: b"PK\x03\x04" + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 4, 0),
        "claims 0 records",
    ),
    "list elsewhere": (lambda: with_field(END + 16, "<L", 0), "does not end where"),
    "list of 4 GiB": (lambda: with_field(END + 12, "<L", 0xFFFFFFFE), "does not end where"),
    "more records than bytes": (
        lambda: with_field(END + 8, "<H", 9999, with_field(END + 10, "<H", 9999)),
        "claims 9999 records",
    ),
    "fewer records than bytes": (lambda: with_field(END + 8, "<H", 2, with_field(END + 10, "<H", 2)), "goes on after"),
    "encrypted": (lambda: with_field(FIRST + 8, "<H", 1), "`archive/data.pkl` is encrypted"),
    "encrypted only in place": (lambda: with_field(6, "<H", 1), "not what the list"),
    "deflated": (lambda: archive(RECORDS, method=zipfile.ZIP_DEFLATED), "`data.pkl` is compressed"),
    "deflated only in place": (lambda: with_field(8, "<H", 8), "not what the list"),
    "two sizes": (lambda: with_field(FIRST + 20, "<L", 1), "though it is not compressed"),
    "on another disk": (lambda: with_field(FIRST + 34, "<H", 1), "in another file"),
    "past the end": (lambda: with_field(FIRST + 42, "<L", len(GOOD)), "begins past the end"),
    "far past the end": (lambda: with_field(FIRST + 42, "<L", 0xFFFFFFFE), "begins past the end"),
    "64-bit place that is missing": (lambda: with_field(FIRST + 42, "<L", 0xFFFFFFFF), "lacks the 64-bit sizes"),
    "data past the end": (lambda: _wide(2, 1 << 20), "past the end of the data"),
    "data over the next record": (lambda: _wide(0, len(PICKLE) + 8), "`data.pkl` and `byteorder` overlap"),
    "two at one place": (lambda: with_field(listed(GOOD, 1) + 42, "<L", 0), "not what the list"),
    "one name twice": (doubled, "two records have the name `data/0`"),
    "name that leaves": (lambda: archive({**RECORDS, "../x": b""}), "leads elsewhere"),
    "name of the root": (lambda: archive({**RECORDS, "x/": b""}), "leads elsewhere"),
    "name with a backslash": (lambda: archive({**RECORDS, "data\\0": b""}), "leads elsewhere"),
    "name that moves the cursor": (lambda: archive({**RECORDS, "x\x1b[2J": b""}), r"x\x1b[2J"),
    "names without a folder": (lambda: archive(RECORDS, folder=""), "not in the archive's folder"),
    "folder above": (lambda: archive(RECORDS, folder=".."), "not in the archive's folder"),
    "absolute names": (lambda: archive(RECORDS, folder="/etc"), "not in the archive's folder"),
    "64-bit end elsewhere": (lambda: large(at=0), "not where it should be"),
    "64-bit end far away": (lambda: large(at=(1 << 64) - 1), "not where it should be"),
    "64-bit end of another length": (lambda: large(rest=1 << 60), "not sound"),
    "64-bit end on another disk": (lambda: large(disk=1), "not sound"),
    "64-bit count": (lambda: large(here=1 << 60, count=1 << 60), "claims 1152921504606846976 records"),
    "64-bit list": (lambda: large(length=1 << 62), "does not end where"),
    "64-bit begin": (lambda: large(begin=(1 << 64) - 1), "does not end where"),
}


def _wide(number: int, size: int) -> bytes:
    """The archive with another size of a record in its list."""
    at = listed(GOOD, number)
    return with_field(at + 24, "<L", size, with_field(at + 20, "<L", size))


@pytest.mark.parametrize("name", FAULTS)
def test_an_unsound_archive(name: str, tmp_path: Path) -> None:
    make, expected = FAULTS[name]
    code, message = refusal(make(), tmp_path)
    assert code == "E0441", message
    assert expected in message


def test_the_archive_without_faults(tmp_path: Path) -> None:
    for raw in (GOOD, large()):
        path = tmp_path / "x.bin"
        path.write_bytes(raw)
        assert list(read_pickle(str(path)).tensors) == ["w"]


@pytest.mark.parametrize("count", [1, 300])
def test_records_are_those_that_zipfile_finds(count: int, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    torch.save({f"w{k}": torch.full((k + 1,), float(k)) for k in range(count)}, path)
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as library, open(path, "rb") as file:
        found = reader.read_records(file.fileno(), len(raw), str(path))
        contents = {name.partition("/")[2]: library.read(name) for name in library.namelist()}
    assert {name: raw[record.start : record.end] for name, record in found.items()} == contents


def test_a_list_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_LIST", 10)
    assert refusal(GOOD, tmp_path)[0] == "E0441"


def script() -> bytes:
    raw = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), raw)
    return raw.getvalue()


def legacy() -> bytes:
    raw = io.BytesIO()
    torch.save({"w": torch.ones(2)}, raw, _use_new_zipfile_serialization=False)
    return raw.getvalue()


OTHERS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "before version 1.6": (legacy, "before version 1.6", "weights_only=True"),
    "a plain pickle": (lambda: pickle.dumps({"w": 1}), "plain pickle", "weights_only=True"),
    "a program": (script, "TorchScript", "torch.jit.load"),
    "nothing": (lambda: b"", "no archive", "fetch the file again"),
    "zeros": (lambda: bytes(1000), "no archive", "fetch the file again"),
    "a pointer of Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "no archive", "git lfs pull"),
    "no pickle": (lambda: archive({"data/0": bytes(8)}), "no `data.pkl`", "name the file"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_another_format(name: str, tmp_path: Path) -> None:
    make, expected, help = OTHERS[name]
    path = tmp_path / "x'); print('.bin"
    path.write_bytes(make())
    with pytest.raises(CatalogError) as caught:
        read_pickle(str(path))
    assert caught.value.code == "E0440"
    assert expected in caught.value.message
    assert help in caught.value.help[0]
    assert "print" not in caught.value.help[0]


def test_the_line_that_converts_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weight = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": weight.t(), "b": weight, "c": weight}, "FILE", _use_new_zipfile_serialization=False)
    # first it is in another form, then a view: each error has a line of its own
    for name, code in (("FILE", "E0440"), ("weights.pt", "E0445")):
        with pytest.raises(CatalogError) as caught:
            read_pickle(name)
        assert caught.value.code == code
        line = caught.value.help[0].partition('-c "')[2].partition('"`')[0]
        exec(line.replace("FILE", name), {})
    made = LocalCatalog().open("model.safetensors", revision=None, subfolder=None, near=str(tmp_path / "r.mrg"))
    assert made.tensors["a"].shape == (3, 2)


@pytest.mark.parametrize("order", [b"big", b"", b"\x1b[2J", b"little" * 10])
def test_another_byte_order(order: bytes, tmp_path: Path) -> None:
    assert refusal(archive({**RECORDS, "byteorder": order}), tmp_path)[0] == "E0448"


def test_no_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(archive({name: raw for name, raw in RECORDS.items() if name != "byteorder"}))
    assert list(read_pickle(str(path)).tensors) == ["w"]


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.bin")
    with pytest.raises(CatalogError) as caught:
        read_pickle(str(tmp_path / "x.bin"))
    assert caught.value.code == "E0429"
    with pytest.raises(CatalogError) as caught:
        read_pickle(str(tmp_path / "none.bin"))
    assert caught.value.code == "E0403"


# --- folders -------------------------------------------------------------------------------------


def folder_refusal(folder: Path) -> str:
    with pytest.raises(CatalogError) as caught:
        LocalCatalog(allow_pickle=True).open(str(folder), revision=None, subfolder=None, near="r.mrg")
    return caught.value.code


@pytest.mark.parametrize(
    ("shard", "code"),
    [
        ("../outside.bin", "E0432"),
        ("/etc/passwd", "E0432"),
        ("one.safetensors", "E0432"),
        ("training_args.bin", "E0432"),
        ("a\\b.bin", "E0432"),
        ("two.bin", "E0433"),
        ("one.bin", "E0434"),
    ],
)
def test_an_index_that_lies(shard: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "outside.bin").write_bytes(GOOD)
    (tmp_path / "model" / "one.bin").write_bytes(GOOD)
    index = {"weight_map": {"w": "one.bin", "x": shard}}
    (tmp_path / "model" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert folder_refusal(tmp_path / "model") == code


def test_a_link_that_leaves(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "outside.bin").write_bytes(GOOD)
    (tmp_path / "model" / "pytorch_model.bin").symlink_to(tmp_path / "outside.bin")
    assert folder_refusal(tmp_path / "model") == "E0408"


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"])
def test_states_of_training_are_no_weights(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(GOOD)
    assert folder_refusal(tmp_path) == "E0406"


# --- anything at all -----------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes of an archive changed anywhere: tensors that lie within the file, or a refusal."""
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(raw)
    try:
        header = read_pickle(str(path))
    except CatalogError:
        return
    assert all(0 <= t.start <= t.end <= len(raw) and t.nbytes <= 8 for t in header.tensors.values())
