"""One bad file a fault, one code each."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mergec.compiler.checkpoint.catalog import CatalogError
from mergec.runtime.formats.safetensors import parse_header, read_header
from profiles import examples

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def raw(header: Any, data: int = 8) -> bytes:
    """A file with this header, given as bytes or as an object, and that many bytes of data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def entry(**changes: Any) -> dict[str, Any]:
    return {"t": {**F32, **changes}}


def second(start: int, end: int) -> dict[str, Any]:
    return {"t": F32, "u": {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}}


FAULTS = {
    "empty file": (b"", "E0410", "file of 0 bytes is too short for a safetensors header"),
    "seven bytes": (bytes(7), "E0410", "file of 7 bytes is too short for a safetensors header"),
    "header over the limit": (
        (104857601).to_bytes(8, "little") + bytes(8),
        "E0411",
        "header length is 104857601 bytes, over the limit of 104857600",
    ),
    "length of all ones": (b"\xff" * 8, "E0411", "header length is 18446744073709551615 bytes"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "E0411", "header length is"),
    "header past the end": (
        (100).to_bytes(8, "little") + b"{}",
        "E0412",
        "header of 100 bytes reaches 98 bytes past the end of the file",
    ),
    "not utf-8": (raw(b'{"\xff"}'), "E0413", "header is not UTF-8 at byte 10"),
    "utf-16": (raw("{}".encode("utf-16")), "E0413", "header is not UTF-8 at byte 8"),
    "empty header": (raw(b""), "E0414", "header does not begin with `{`"),
    "space first": (raw(b" {}", 0), "E0414", "header does not begin with `{`"),
    "byte order mark": (raw(b"\xef\xbb\xbf{}", 0), "E0414", "header does not begin with `{`"),
    "a list": (raw([]), "E0414", "header does not begin with `{`"),
    "cut json": (raw(b'{"t":'), "E0414", "header is not JSON: Expecting value"),
    "two objects": (raw(b"{}{}"), "E0414", "header is not JSON: Extra data"),
    "number of 5000 digits": (raw(b'{"t":' + b"9" * 5000 + b"}"), "E0414", "header is not JSON: Exceeds the limit"),
    "deep lists": (raw(b'{"t":' + b"[" * 100_000), "E0415", "header is nested too deeply"),
    "deep objects": (raw(b'{"t":' * 100_000), "E0415", "header is nested too deeply"),
    "deep and escaped": (raw(b'{"\\n":' + b"[" * 100_000), "E0415", "header is nested too deeply"),
    "a bomb of lists": (raw(b'{"t":[' + b"[]," * 400_000 + b"0]}"), "E0415", "header has more brackets than"),
    "tensor twice": (
        raw(
            b'{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        ),
        "E0416",
        "key `t` appears twice in the header",
    ),
    "tensor twice, once escaped": (
        raw(b'{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"\\u0074":{}}'),
        "E0416",
        "key `t` appears twice in the header",
    ),
    "dtype twice": (
        raw(b'{"t":{"dtype":"F64","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
        "E0416",
        "key `dtype` appears twice in the header",
    ),
    "metadata twice": (
        raw(b'{"__metadata__":{},"__metadata__":{"a":"b"}}', 0),
        "E0416",
        "key `__metadata__` appears twice in the header",
    ),
    "metadata key twice": (raw(b'{"__metadata__":{"a":"b","a":"c"}}', 0), "E0416", "key `a` appears twice"),
    "metadata a list": (raw({"__metadata__": []}), "E0417", "`__metadata__` is not an object"),
    "metadata null": (raw({"__metadata__": None}), "E0417", "`__metadata__` is not an object"),
    "metadata number": (raw({"__metadata__": {"n": 1}}), "E0417", "value of `n` in `__metadata__` is not a string"),
    "metadata half a surrogate": (
        raw({"__metadata__": {"n": "\ud800"}}),
        "E0417",
        "`n` in `__metadata__` is not valid",
    ),
    "entry a number": (raw({"t": 1}), "E0418", "entry of tensor `t` is not an object of"),
    "entry null": (raw({"t": None}), "E0418", "entry of tensor `t` is not an object of"),
    "no dtype": (raw({"t": {"shape": [], "data_offsets": [0, 8]}}), "E0418", "entry of tensor `t` is not an object of"),
    "one key more": (raw(entry(strides=[1])), "E0418", "entry of tensor `t` is not an object of"),
    "unknown dtype": (raw(entry(dtype="F4\x1b")), "E0419", r"tensor `t` has the unknown dtype `F4\x1b`"),
    "dtype a list": (raw(entry(dtype=[])), "E0419", "tensor `t` has the unknown dtype `[]`"),
    "shape a number": (raw(entry(shape=2)), "E0420", "shape of tensor `t` is not a list of non-negative integers"),
    "shape text": (raw(entry(shape="2")), "E0420", "shape of tensor `t` is not a list of non-negative integers"),
    "negative": (raw(entry(shape=[-1, -2])), "E0420", "shape of tensor `t` is not a list of non-negative integers"),
    "a fraction": (raw(entry(shape=[2.0])), "E0420", "shape of tensor `t` is not a list of non-negative integers"),
    "a boolean": (raw(entry(shape=[True, 2])), "E0420", "shape of tensor `t` is not a list of non-negative integers"),
    "too many dimensions": (raw(entry(shape=[1] * 65)), "E0420", "shape of tensor `t` has 65 dimensions, over"),
    "overflow": (raw(entry(shape=[2**62, 4])), "E0421", "shape of tensor `t` overflows"),
    "overflow to the right length": (raw(entry(shape=[2**63 + 1, 2])), "E0421", "shape of tensor `t` overflows"),
    "overflow hidden by zero": (
        raw(entry(shape=[2**63, 0], data_offsets=[0, 0]), 0),
        "E0421",
        "shape of tensor `t` overflows",
    ),
    "one offset": (raw(entry(data_offsets=[0])), "E0422", "`data_offsets` of tensor `t` is not two non-negative"),
    "offsets text": (raw(entry(data_offsets="08")), "E0422", "`data_offsets` of tensor `t` is not two non-negative"),
    "offsets fractions": (raw(entry(data_offsets=[0.0, 8.0])), "E0422", "`data_offsets` of tensor `t` is not two"),
    "negative offset": (raw(entry(data_offsets=[-8, 0])), "E0422", "`data_offsets` of tensor `t` is not two"),
    "offsets turned round": (raw(entry(data_offsets=[8, 0])), "E0422", "`data_offsets` of tensor `t` end before they"),
    "length of another shape": (
        raw(entry(shape=[3])),
        "E0423",
        "tensor `t` of shape [3] and dtype `F32` takes 12 bytes but has 8",
    ),
    "overlap": (raw(second(4, 12), 12), "E0424", "tensors `t` and `u` overlap"),
    "the same bytes twice": (raw({"t": F32, "u": F32}), "E0424", "tensors `t` and `u` overlap"),
    "hole": (raw(second(10, 12), 12), "E0425", "2 bytes before tensor `u` belong to no tensor"),
    "hole at the beginning": (raw(entry(data_offsets=[8, 16]), 16), "E0425", "8 bytes before tensor `t` belong to no"),
    "truncated": (raw(second(8, 12), 9), "E0426", "file is truncated: 3 bytes are missing, from tensor `u` on"),
    "no data": (raw(entry(), 0), "E0426", "file is truncated: 8 bytes are missing, from tensor `t` on"),
    "far past the end": (
        raw(entry(shape=[2**59], data_offsets=[0, 2**61])),
        "E0426",
        "file is truncated: 2305843009213693944 bytes are missing, from tensor `t` on",
    ),
    "bytes left over": (raw(entry(), 11), "E0427", "3 bytes after the last tensor belong to no tensor"),
    "long name": (raw({"n" * 1025: F32}), "E0428", "tensor `nnn"),
    "name half a surrogate": (raw({"\udc00": F32}), "E0428", r"tensor `\udc00` has a name that is not valid text"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(fault: str, tmp_path: Path) -> None:
    content, code, message = FAULTS[fault]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CatalogError) as caught:
        read_header(str(path))
    assert (caught.value.code, caught.value.message[: len(message)]) == (code, message)
    assert caught.value.file == str(path)
    assert caught.value.message.isprintable()


def test_every_code_of_a_header_has_a_case() -> None:
    assert {code for _, code, _ in FAULTS.values()} == {f"E04{n}" for n in range(10, 29)}


def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe.safetensors"
    os.mkfifo(path)
    with pytest.raises(CatalogError) as caught:
        read_header(str(path))
    assert (caught.value.code, caught.value.message) == ("E0429", "not a regular file")


def test_lfs_pointer_says_how_to_fetch(tmp_path: Path) -> None:
    path = tmp_path / "lfs.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CatalogError) as caught:
        read_header(str(path))
    assert "git lfs pull" in caught.value.help[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "x"]), children, max_size=4
        )
    ),
    max_leaves=12,
)


@examples(200)
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), JSON) | st.binary(max_size=64), st.integers(0, 64))
def test_anything_else_is_a_catalog_error(header: Any, size: int) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    # nothing but a CatalogError may come out
    with suppress(CatalogError):
        tensors, _ = parse_header(text, 8 + len(text) + size, "x")
        assert sum(tensor.nbytes for tensor in tensors.values()) == size
