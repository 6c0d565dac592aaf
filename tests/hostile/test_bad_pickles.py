"""Pickles that attack, exhaust or lie: each is refused by its code, and nothing that it names is
run."""

from __future__ import annotations

import ast
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mergec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mergec.compiler.checkpoint.catalog import CatalogError
from mergec.runtime.formats.pickled import header, interpreter
from mergec.runtime.formats.pickled.header import read_pickle
from mergec.runtime.formats.pickled.interpreter import interpret
from mergec.runtime.formats.pickled.standins import NAMES
from pickled_files import ORDERED, REBUILD, number, numbers, saved, state, storage, tensor, text

ROOT = Path(__file__).resolve().parents[2]
SENTINEL = "pickle-was-run"


class Calls:
    """Is pickled as a call of any function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def refusal(path: Path) -> tuple[str, str]:
    with pytest.raises(CatalogError) as caught:
        read_pickle(str(path))
    assert caught.value.file == str(path)
    assert caught.value.message.isprintable()
    return caught.value.code, caught.value.message


def of(data: bytes, tmp_path: Path, **storages: bytes) -> tuple[str, str]:
    """How an archive of this pickle is refused."""
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(saved(data, **storages))
    return refusal(path)


# --- code ----------------------------------------------------------------------------------------

RUN = f"open('{SENTINEL}', 'w')"
PICKLED = {
    "os.system": Calls(os.system, f"touch {SENTINEL}"),
    "builtins.eval": Calls(eval, RUN),
    "builtins.exec": Calls(exec, RUN),
    "builtins.getattr": Calls(getattr, Calls(__import__, "os"), "system"),
    "open": Calls(open, SENTINEL, "w"),
    "torch.load": Calls(torch.load, "other.bin"),
    "torch.hub": Calls(torch.hub.load, "a/b", "c"),
    "subprocess": Calls(subprocess.Popen, ["touch", SENTINEL]),
    "a class": subprocess.Popen,
    "pickle.loads": Calls(pickle.loads, pickle.dumps(Calls(os.system, f"touch {SENTINEL}"))),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("where", ["alone", "beside", "inside", "as a key", "as an argument"])
@pytest.mark.parametrize("name", PICKLED)
def test_nothing_is_called(
    name: str, where: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attack, weight = PICKLED[name], torch.ones(2)
    value: Any = {
        "alone": attack,
        "beside": {"w": weight, "x": attack},
        "inside": {"state_dict": {"w": weight}, "optimizer": [{"deep": (attack,)}]},
        "as a key": {"w": weight, attack: 1},
        "as an argument": Calls(torch._utils._rebuild_parameter, attack, True, None),
    }[where]
    torch.save(value, "x.bin", pickle_protocol=protocol)
    code, message = refusal(tmp_path / "x.bin")
    assert code == "E0442", message
    assert sorted(os.listdir(tmp_path)) == ["x.bin"]
    with pytest.raises(mergec.MergecError):
        mergec.compile('let a = model("x.bin")\n* = a', device="cpu", allow_pickle=True)
    assert sorted(os.listdir(tmp_path)) == ["x.bin"]


SYSTEM = b"cos\nsystem\n"
CALL = b"(" + text(f"touch {SENTINEL}") + b"t"
CODE = {
    "GLOBAL": (SYSTEM, "names `os.system`"),
    "REDUCE": (SYSTEM + CALL + b"R", "names `os.system`"),
    "STACK_GLOBAL": (text("os") + text("system") + b"\x93", "names `os.system`"),
    "dotted STACK_GLOBAL": (text("torch") + text("os.system") + b"\x93", "names `torch.os.system`"),
    "dotted GLOBAL": (b"ctorch\nserialization.os.system\n", "names `torch.serialization.os.system`"),
    "allowed name of another module": (b"cbuiltins\nOrderedDict\n", "names `builtins.OrderedDict`"),
    "name with an escape": (b"cos\nsys\x1b[31mtem\n", r"names `os.sys\x1b[31mtem`"),
    "name that is not text": (b"cos\n\xff\n", r"names `os.\xff`"),
    "INST": (b"(ios\nsystem\n", "the instruction `INST`"),
    "OBJ": (b"(" + b"o", "the instruction `OBJ`"),
    "NEWOBJ": (SYSTEM + CALL + b"\x81", "names `os.system`"),
    "NEWOBJ of a text": (text("x") + b")\x81", "calls something that is no function"),
    "NEWOBJ_EX of a storage": (storage("0", 2) + b")}\x92", "calls something that is no function"),
    "EXT1": (b"\x82\x01", "the instruction `EXT1`"),
    "EXT2": (b"\x83\x01\x00", "the instruction `EXT2`"),
    "EXT4": (b"\x84\x01\x00\x00\x00", "the instruction `EXT4`"),
    "PERSID": (b"P0\n", "the instruction `PERSID`"),
    "NEXT_BUFFER": (b"\x97", "the instruction `NEXT_BUFFER`"),
    "REDUCE of a text": (text("os.system") + CALL + b"R", "calls something that is no function"),
    "REDUCE of a storage": (storage("0", 2) + b")R", "calls something that is no function"),
    "REDUCE of a class of storages": (b"ctorch\nFloatStorage\n)R", "calls something that is no function"),
    "BUILD of a tensor": (tensor() + b"}" + text("__setstate__") + b"Nsb", "gives state"),
    "BUILD of a name": (b"ctorch\nTensor\n}b", "gives state"),
    "BUILD of a text": (text("x") + b"}b", "gives state"),
}


@pytest.mark.parametrize("name", CODE)
def test_code_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    instructions, expected = CODE[name]
    code, message = of(b"\x80\x02}(" + text("w") + instructions + b"u.", tmp_path)
    assert code == "E0442", message
    assert expected in message
    assert os.listdir(tmp_path) == ["pytorch_model.bin"]


KEYS = {
    "nested": (state(a=tensor(), encoder=b"}" + text("w") + tensor() + b"s"), "nested under `encoder`", "encoder"),
    "nested twice": (
        state(model=b"}" + text("a") + b"}" + text("w") + tensor() + b"ss"),
        "deeper than under one key",
        "model.a",
    ),
    "two states": (
        state(model=b"}" + text("w") + tensor() + b"s", module=b"}" + text("w") + tensor() + b"s"),
        "under 2 keys",
        "module",
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_asked_for(name: str, tmp_path: Path) -> None:
    data, expected, key = KEYS[name]
    code, message = of(data, tmp_path)
    assert code == "E0484", message
    assert expected in message
    assert list(read_pickle(str(tmp_path / "pytorch_model.bin"), 0, key).tensors) == ["w"]


def test_an_object_that_holds_a_million_others_is_looked_through_once(tmp_path: Path) -> None:
    """Many objects that share what they are made of, which is deep."""
    chain = b"}q\x00" + b"".join(
        b"}r" + struct.pack("<I", k) + text("k") + b"j" + struct.pack("<I", k - 1) + b"s" for k in range(1, 5_000)
    )
    many = b"".join(text(f"x{k}") + b"cmine\nThing\nj" + struct.pack("<I", 4_999) + b"\x85R" for k in range(5_000))
    data = b"\x80\x02" + chain + b"0" * 5_000 + b"}(" + text("w") + tensor() + many + b"u."
    path = tmp_path / "x.bin"
    path.write_bytes(saved(data))
    begin = time.process_time()
    assert list(read_pickle(str(path)).tensors) == ["w"]
    assert time.process_time() - begin < 5


def test_state_of_a_dict_is_dropped(tmp_path: Path) -> None:
    """`__setstate__` and all: a state dict's attributes are no one's."""
    attributes = b"}(" + text("__setstate__") + text("x") + text("__class__") + text("y") + b"u"
    path = tmp_path / "x.bin"
    path.write_bytes(saved(b"\x80\x02" + ORDERED + b"(" + text("w") + tensor() + b"u" + attributes + b"b."))
    assert list(read_pickle(str(path)).tensors) == ["w"]


def test_the_reader_can_run_nothing() -> None:
    """It imports neither `pickle` nor anything else that looks names up, and calls no such
    builtin."""
    for file in (ROOT / "runtime" / "formats" / "pickled").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {m.split(".")[0] for m in modules} & {"pickle", "importlib", "torch", "zipfile", "sys"}
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert called not in ("eval", "exec", "getattr", "setattr", "__import__", "compile", "globals", "vars")


def test_every_name_stands_for_something_of_this_project() -> None:
    for value in NAMES.values():
        assert type(value).__module__ == "mergec.runtime.formats.pickled.standins"


# --- unsound -------------------------------------------------------------------------------------

REFERENCE = b"(" + text("storage") + b"ctorch\nFloatStorage\n"
UNSOUND = {
    "empty": (b"", "does not begin"),
    "protocol 0": (b"(dp0\n.", "does not begin"),
    "protocol 9": (b"\x80\x09}.", "does not begin"),
    "no end": (b"\x80\x02}", "truncated"),
    "something after the end": (b"\x80\x02}.}", "1 bytes follow"),
    "nothing on the stack": (b"\x80\x02.", "more or less than one value"),
    "two values": (b"\x80\x02}}.", "more or less than one value"),
    "open mark": (b"\x80\x02(}.", "more or less than one value"),
    "stack underflow": (b"\x80\x02s}.", "more from its stack"),
    "tuple underflow": (b"\x80\x02N\x87}.", "more from its stack"),
    "tuple across a mark": (b"\x80\x02NN(N\x87.", "more from its stack"),
    "mark underflow": (b"\x80\x02t}.", "more from its stack"),
    "memo without entry": (b"\x80\x02h\x00.", "no entry 0"),
    "memo far away": (b"\x80\x02}r\xff\xff\xff\xff.", "is written at 4294967295"),
    "text of 4 GiB": (b"\x80\x02X\xff\xff\xff\xffx.", "4294967295 bytes should follow"),
    "text of 16 EiB": (b"\x80\x04\x8d" + b"\xff" * 8 + b"x.", "18446744073709551615 bytes should follow"),
    "bytes of 16 EiB": (b"\x80\x04\x8e" + b"\xff" * 8 + b"x.", "18446744073709551615 bytes should follow"),
    "frame of 16 EiB": (b"\x80\x04\x95" + b"\xff" * 8 + b"}.", "18446744073709551615 bytes should follow"),
    "LONG4": (b"\x80\x02\x8b\xff\xff\xff\x7f1.", "0x8b"),
    "LONG as text": (b"\x80\x02L" + b"9" * 1000 + b"L\n.", "0x4c"),
    "BYTEARRAY8": (b"\x80\x05\x96" + b"\xff" * 8 + b".", "0x96"),
    "unknown instruction": (b"\x80\x02\xff.", "0xff"),
    "text that is not UTF-8": (b"\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"),
    "half of a surrogate pair": (b"\x80\x02" + text("\ud800") + b".", "not UTF-8"),
    "name without end": (b"\x80\x02c" + b"x" * 1000, "a name does not end"),
    "name of a number": (b"\x80\x04K\x01K\x01\x93.", "a name is no text"),
    "items of a list": (b"\x80\x02](NNu.", "no dict"),
    "odd items": (b"\x80\x02}(Nu.", "no dict"),
    "append to a dict": (b"\x80\x02}Na.", "no list"),
    "call with a list": (b"\x80\x02ccollections\nOrderedDict\n]R.", "no tuple"),
    "ordered dict of pairs": (b"\x80\x02ccollections\nOrderedDict\n]\x85R.", "made of something"),
    "storage by a text": (b"\x80\x02" + text("0") + b"Q.", "unknown way"),
    "storage of a view": (b"\x80\x02" + REFERENCE + text("0") + text("cpu") + b"K\x02NtQ.", "unknown way"),
    "storage of no class": (
        b"\x80\x02(" + text("storage") + b"N" + text("0") + text("cpu") + b"K\x02tQ.",
        "unknown way",
    ),
    "storage of a long name": (b"\x80\x02" + REFERENCE + text("0" * 65) + text("cpu") + b"K\x02tQ.", "unknown way"),
    "storage of a negative length": (b"\x80\x02" + storage("0", -1) + b".", "no whole number"),
    "storage of a huge length": (b"\x80\x02" + storage("0", 1 << 63) + b".", "no whole number"),
    "storage of a fraction": (b"\x80\x02" + REFERENCE + text("0") + text("cpu") + b"G" + bytes(8) + b"tQ.", "no whole"),
    "tensor of nothing": (b"\x80\x02" + REBUILD + b")R.", "fewer arguments"),
    "tensor of a text": (b"\x80\x02" + REBUILD + b"(" + text("x") + b"NNNNNtR.", "no storage"),
    "shape of a list": (b"\x80\x02" + REBUILD + b"(" + storage("0", 2) + b"K\x00])NNtR.", "no tuple"),
    "shape of booleans": (b"\x80\x02" + REBUILD + b"(" + storage("0", 2) + b"K\x00\x88\x85)NNtR.", "no whole number"),
    "more strides": (state(w=tensor((2,), (1, 1))), "more or fewer strides"),
    "negative stride": (state(w=tensor((2,), (-1,))), "no whole number"),
    "negative offset": (state(w=tensor(offset=-1)), "no whole number"),
    "65 dimensions": (state(w=tensor((1,) * 65, (1,) * 65)), "65 dimensions"),
    "untyped tensor": (
        state(w=REBUILD + b"(" + storage("0", 8, "torch.storage\nUntypedStorage") + number(0) + b"))NNtR"),
        "what it is made of",
    ),
    "parameter of a text": (b"\x80\x02ctorch._utils\n_rebuild_parameter\n" + text("x") + b"\x85R.", "no tensor"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_an_unsound_pickle(name: str, tmp_path: Path) -> None:
    data, expected = UNSOUND[name]
    code, message = of(data, tmp_path)
    assert code == "E0443", message
    assert expected in message


TENSORS = {
    "no such storage": (tensor(key="1"), "E0447", "lies in storage `1`, which the archive lacks"),
    "storage elsewhere": (tensor(key="../../etc/passwd"), "E0447", "which the archive lacks"),
    "storage of another length": (tensor(count=3), "E0447", "of 8 bytes, which should have 12"),
    "past the end": (tensor(offset=1), "E0447", "reaches 4 bytes past the end"),
    "far past the end": (tensor(offset=(1 << 63) - 1), "E0447", "past the end"),
    "overflow": (tensor((1 << 40, 1 << 40), (1 << 40, 1)), "E0447", "overflows"),
    "overflow behind a zero": (tensor((0, 1 << 40, 1 << 40), (1, 1, 1)), "E0447", "overflows"),
    "expanded to terabytes": (tensor((1 << 40,), (0,)), "E0445", "don't lie in order"),
    "transposed": (tensor((2, 2), (1, 2)), "E0445", "don't lie in order"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_an_unsound_tensor(name: str, tmp_path: Path) -> None:
    made, code, expected = TENSORS[name]
    found = of(state(w=made), tmp_path)
    assert found[0] == code
    assert "tensor `w`" in found[1]
    assert expected in found[1]


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    assert of(state(**{"w" * 1025: tensor()}), tmp_path)[0] == "E0447"


STATES = {
    "a list": (b"\x80\x02].", "no mapping"),
    "a tensor": (b"\x80\x02" + tensor() + b".", "no mapping"),
    "nothing": (b"\x80\x02}.", "no tensors by name"),
    "no tensors": (state(epoch=number(3)), "no tensors by name"),
    "a number as a name": (b"\x80\x02}K\x01" + tensor() + b"s.", "no text"),
    "one name twice": (b"\x80\x02}" + (text("w") + tensor() + b"s") * 2 + b".", "twice"),
}


@pytest.mark.parametrize("name", STATES)
def test_no_state_dict(name: str, tmp_path: Path) -> None:
    data, expected = STATES[name]
    code, message = of(data, tmp_path)
    assert code == "E0444", message
    assert expected in message


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (torch.zeros(2, dtype=torch.complex64), "E0446"),
        (torch.zeros(2, dtype=torch.complex64).conj(), "E0446"),
        (torch.zeros(2, dtype=torch.complex64).conj().imag, "E0446"),
        (torch.eye(2).to_sparse(), "E0446"),
        (torch.zeros(2, device="meta"), "E0446"),
        (torch.zeros(2, 3).t(), "E0445"),
        (torch.zeros(1).expand(3), "E0445"),
        (torch.zeros(6)[::2], "E0445"),
    ],
)
def test_tensors_that_are_no_ranges(value: torch.Tensor, code: str, tmp_path: Path) -> None:
    torch.save({"fine": torch.ones(2), "odd": value}, tmp_path / "x.bin")
    found = refusal(tmp_path / "x.bin")
    assert found[0] == code
    assert "`odd`" in found[1]


@pytest.mark.filterwarnings("ignore")
def test_quantised(tmp_path: Path) -> None:
    torch.save({"q": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, tmp_path / "x.bin")
    assert refusal(tmp_path / "x.bin") == ("E0446", "tensor `q` is quantised, which safetensors can't hold")


# --- exhaustion ----------------------------------------------------------------------------------

DEEP = 100_000
FROM_TYPE = b"ctorch._tensor\n_rebuild_from_type_v2\n"
LAUGHS = b"]" + b"q\x00(" + b"h\x00" * 100 + b"e" + b"".join(
    b"]q" + bytes([i]) + b"(" + bytes([ord("h"), i - 1]) * 100 + b"e" for i in range(1, 200)
)  # fmt: skip
DICTS = b"}q\x00" + b"".join(
    b"}q" + bytes([i]) + b"(" + b"".join(text(str(k)) + bytes([ord("h"), i - 1]) for k in range(50)) + b"u"
    for i in range(1, 200)
)
TUPLES = b")q\x00" + b"h\x00h\x00\x86q\x00" * 200
BOMBS = {
    "lists of lists": LAUGHS + b"0" * 199,
    "dicts of dicts": DICTS + b"0" * 199,
    "pairs of pairs": TUPLES,
    "pairs of pairs as a key": b"}" + TUPLES[:-2] + b"Ns",
    "deep tuples": b")" + b"\x85" * DEEP,
    "deep marks": b"(" * DEEP + b"1" * DEEP + b"]",
    "deep dicts": (b"}" + text("x")) * DEEP + b"N" + b"s" * DEEP,
    "deep classes of tensors": FROM_TYPE + b"q\x00)" + b"q\x010h\x00Nh\x01\x87" * DEEP + b"q\x010h\x00h\x01R",
    "dict in itself": b"}q\x00" + text("x") + b"h\x00s",
}


def within(data: bytes, path: Path) -> float:
    """Reads a file of this pickle in a process that has a GiB; seconds of the processor."""
    path.write_bytes(saved(data))
    code = (
        "import resource, sys, time\n"
        "from mergec.compiler.checkpoint.catalog import CatalogError\n"
        "from mergec.runtime.formats.pickled.header import read_pickle\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({1 << 30}, {1 << 30}))\n"
        "began = time.process_time()\n"
        "try:\n    read_pickle(sys.argv[1])\n"
        "except CatalogError as error:\n    print(error.code, time.process_time() - began)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found, seconds = done.stdout.split()
    assert found in ("E0442", "E0443", "E0444")
    return float(seconds)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str, tmp_path: Path) -> None:
    assert within(b"\x80\x02" + BOMBS[name] + b".", tmp_path / "x.bin") < 5


FLOODS = {
    "dicts": b"}",
    "marks": b"(",
    "memo": b"}\x94",
    "texts": b"\x8c\x01x",
    "tables": b"h\x00)R",
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods(name: str, tmp_path: Path) -> None:
    """As many instructions as are carried out, each making what takes most for its length."""
    flood = FLOODS[name]
    count = min(interpreter.MAX_STEPS + 10, header.MAX_PICKLE // len(flood) - 100)
    start = b"\x80\x04ccollections\nOrderedDict\n\x94"
    assert within(start + flood * count, tmp_path / "x.bin") < 30


def test_one_long_tuple_for_many_tensors(tmp_path: Path) -> None:
    """Each of many tensors refers to one tuple of a million numbers: none of them looks through
    it."""
    long = b"(" + b"K\x01" * 1_000_000 + b"tq\x00"
    made = b"(" + storage("0", 2) + b"q\x01K\x00h\x00h\x00NNt"
    assert within(b"\x80\x02" + long + REBUILD + made + b"R.", tmp_path / "x.bin") < 5


def test_one_table_for_many_names(tmp_path: Path) -> None:
    """A dict of 100,000 entries that is the value of 100,000 others is looked through once."""
    wide = b"}q\x00(" + b"NN" * 100_000 + b"u0"
    assert within(b"\x80\x02" + wide + b"}(" + b"Nh\x00" * 100_000 + b"u.", tmp_path / "x.bin") < 5


def test_a_pickle_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "MAX_PICKLE", 100)
    assert of(state(w=tensor()), tmp_path) == (
        "E0443",
        f"the pickle has {len(state(w=tensor()))} bytes, over the limit of 100",
    )


def test_large_checkpoints_are_read_in_time(tmp_path: Path) -> None:
    """A third of the tensors that the largest models have."""
    names = {f"model.layers.{i // 1000}.mlp.experts.{i % 1000}.weight": tensor() for i in range(30_000)}
    path = tmp_path / "x.bin"
    path.write_bytes(saved(state(**names)))
    began = time.process_time()
    assert len(read_pickle(str(path)).tensors) == 30_000
    assert time.process_time() - began < 10


# --- anything at all -----------------------------------------------------------------------------

GOOD = state(w=tensor(), v=tensor(offset=1, shape=(1,)), n=number(3))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage(data: st.DataObject) -> None:
    """Bytes of a good pickle changed anywhere: stand-ins or a refusal, and nothing else."""
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        if not raw:
            break
    refused = ("E0443", "")
    try:
        interpret(bytes(raw), "x.bin")
    except CatalogError as error:
        refused = error.code, error.message
    assert refused[0] in ("E0442", "E0443")
    assert refused[1].isprintable()


def test_lengths_are_little_endian() -> None:
    assert interpret(b"\x80\x02X" + struct.pack("<I", 1) + b"x.", "x").value == "x"
    assert interpret(b"\x80\x02" + numbers((1, -1, 300)) + b".", "x").value == (1, -1, 300)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(PLAIN, st.integers(2, 5))
def test_plain_values_are_what_pickle_makes_of_them(value: Any, protocol: int) -> None:
    assert interpret(pickle.dumps(value, protocol), "x.bin").value == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_instructions_end_where_pickletools_says(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a file of `torch.save`, by the place at which it is looked up."""
    tensors = {f"w{k}": torch.zeros(2, dtype=dtype) for k, dtype in enumerate((torch.float32, torch.int8) * 200)}
    value = {**tensors, "n": (1, 300, 70_000, 1 << 40, 1.5), "text": "x" * 300, "list": [[], [None, True]]}
    if protocol >= 4:  # before, they are made by calls
        value |= {"bytes": (b"x", b"x" * 300), "sets": [{1, 2}, frozenset({3})]}
    torch.save(value, tmp_path / "x.bin", pickle_protocol=protocol)
    with zipfile.ZipFile(tmp_path / "x.bin") as records:
        data = records.read("x/data.pkl")
    machine = interpreter._Machine(data, "x.bin")
    seen: list[int] = []

    class Noting(dict[int, Any]):
        def get(self, code: int, default: Any = None) -> Any:
            seen.append(machine.at - 1)
            return super().get(code, default)

    monkeypatch.setattr(interpreter, "STEPS", Noting(interpreter.STEPS))
    machine.run()
    places = [place for _, _, place in pickletools.genops(data)]
    assert [0, *seen, len(data) - 1] == places
