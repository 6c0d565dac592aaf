"""Sound headers: what the safetensors library writes is read back, and quickly."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st
from mergec.compiler.checkpoint.catalog import CatalogError, InputFile, StoredTensor
from mergec.runtime.formats.safetensors import Header, parse_header, read_header
from profiles import examples
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I16": np.int16,
    "F16": np.float16,
    "I32": np.int32,
    "F32": np.float32,
    "F64": np.float64,
    "U64": np.uint64,
}


def test_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    text = (
        b'{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},'
        b'"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"I64","shape":[0,5],"data_offsets":[4,4]}}'
        b"   "
    )
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    os.utime(path, ns=(5, 7))
    base = 8 + len(text)
    header, status = read_header(str(path), file=3), path.stat()
    assert header == Header(
        {
            "b": StoredTensor("b", "BF16", (2, 3), 3, base + 4, base + 16),
            "a": StoredTensor("a", "F32", (), 3, base, base + 4),
            "e": StoredTensor("e", "I64", (0, 5), 3, base + 4, base + 4),
        },
        {"format": "pt"},
        InputFile(str(path), base + 16, 7, status.st_ctime_ns, status.st_dev, status.st_ino),
    )


def test_escapes_and_control_characters_in_names() -> None:
    text = json.dumps({"a\n\x1bé\\": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    tensors, metadata = parse_header(text, 8 + len(text) + 1, "x")
    assert list(tensors) == ["a\n\x1bé\\"]
    assert metadata == {}


def test_no_tensors() -> None:
    assert parse_header(b"{}", 10, "x") == ({}, {})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no such file or directory") as caught:
        read_header(str(tmp_path / "none.safetensors"))
    assert caught.value.code == "E0403"


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@examples(60, HealthCheck.function_scoped_fixture)
@given(
    st.dictionaries(names, st.tuples(st.sampled_from(sorted(DTYPES)), shapes), max_size=8),
    st.none() | st.dictionaries(names, st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3),
)
def test_round_trip(
    tmp_path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "a.safetensors"
    arrays = {
        name: np.arange(i, i + math.prod(shape)).astype(DTYPES[dtype]).reshape(shape)
        for i, (name, (dtype, shape)) in enumerate(tensors.items())
    }
    # the library writes broken JSON for no tensors with an empty metadata
    save_file(arrays, path, metadata or None)
    header = read_header(str(path))
    content = path.read_bytes()
    assert {name: (t.dtype, t.shape) for name, t in header.tensors.items()} == tensors
    assert header.metadata == (metadata or {})
    assert header.file.size == len(content)
    for name, t in header.tensors.items():
        assert content[t.start : t.end] == arrays[name].tobytes()


def test_ninety_thousand_tensors() -> None:
    entries = {
        f"model.layers.{i // 1500}.mlp.experts.{i % 256}.gate_proj{i}.weight": {
            "dtype": "BF16",
            "shape": [64, 32],
            "data_offsets": [i * 4096, (i + 1) * 4096],
        }
        for i in range(91_000)
    }
    text = json.dumps(entries, separators=(",", ":")).encode()
    begin = time.process_time()
    tensors, _ = parse_header(text, 8 + len(text) + 91_000 * 4096, "x")
    # about 0.5 s on a slow core; the bound only catches a change of order
    assert time.process_time() - begin < 3
    assert len(tensors) == 91_000


SIZES_OF_NOTHING = st.lists(st.sampled_from([0, 1, 2, 3, 2**20, 2**31, 2**40, 2**61, 2**62]), min_size=1, max_size=6)


@examples(100)
@given(dtype=st.sampled_from(sorted(DTYPES)), shape=SIZES_OF_NOTHING.filter(lambda shape: 0 in shape))
@example(dtype="F32", shape=[2**40, 2**40, 0])
@example(dtype="F32", shape=[0, 2**40, 2**40])
@example(dtype="U8", shape=[2**62, 4, 0])
def test_dimensions_before_a_zero(dtype: str, shape: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Refused where the safetensors library refuses them: sizes overflow as they are multiplied, in
    order. Here that counts bytes of 63 bits, there elements of 64."""
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
    text = json.dumps({"x": entry}).encode()
    path = tmp_path_factory.getbasetemp() / "zero.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    try:
        with safe_open(path, "numpy"):
            sound = True
    except SafetensorError:
        sound = False
    count = most = np.dtype(DTYPES[dtype]).itemsize
    for n in shape:
        count *= n
        most = max(most, count)
    if not sound:
        with pytest.raises(CatalogError, match="overflows") as caught:
            read_header(str(path))
        assert caught.value.code == "E0421"
    elif most < 2**63:
        assert read_header(str(path)).tensors["x"].shape == tuple(shape)
