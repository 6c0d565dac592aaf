"""Checksums do not depend on how the bytes come, and tell when they have changed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from compiled import skip_without_a_compiler
from hypothesis import given
from hypothesis import strategies as st
from mergec.compiler.plan.plan import OutputTensor
from mergec.runtime.resume import checksums
from mergec.runtime.resume.checksums import Checksum
from mergec.runtime.resume.confirm import Stored, confirm
from mergec.runtime.resume.ledger import Ledger

M = 1 << 64


def naive(data: bytes) -> str:
    total = 0
    padded = data + bytes(-len(data) % 8)
    for i in range(len(padded) // 8):
        x = (int.from_bytes(padded[8 * i : 8 * i + 8], "little") + (i + 1) * 0x9E3779B97F4A7C15) % M
        x ^= x >> 32
        x = x * 0xD6E8FEB86659FD93 % M
        total += x ^ x >> 29
    return f"{total % M:016x}"


def whole(data: bytes) -> str:
    total = Checksum(len(data))
    total.add(memoryview(data), 0)
    return total.value()


@pytest.mark.parametrize("compiled", [False, True])
def test_both_implementations(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiled:
        skip_without_a_compiler()
    if not compiled:
        monkeypatch.setattr(checksums, "sums", lambda: None)
    for size in (0, 1, 8, 17, 4096, 100_003):
        bytes_ = bytes(k * k % 251 for k in range(size + 1))
        assert whole(bytes_[1:]) == naive(bytes_[1:])
        total = Checksum(size + 1)
        cut = min(3, len(bytes_))
        total.add(memoryview(bytes_)[cut:], cut)
        total.add(memoryview(bytes_)[:cut], 0)
        assert total.value() == naive(bytes_)


@given(st.data())
def test_pieces_in_any_order(data: st.DataObject) -> None:
    bytes_ = data.draw(st.binary(max_size=300).map(lambda b: b * data.draw(st.sampled_from([1, 1, 700]))))
    cuts = sorted({0, len(bytes_), *data.draw(st.lists(st.integers(0, len(bytes_)), max_size=12))})
    pieces = data.draw(st.permutations(list(pairwise(cuts))))
    total = Checksum(len(bytes_))
    for start, stop in pieces:
        total.add(memoryview(bytes_)[start:stop], start)
    assert total.value() == naive(bytes_)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_any_change_of_a_word_shows(bytes_: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(bytes_) - 1))
    other = bytearray(bytes_)
    other[at] ^= data.draw(st.integers(1, 255))
    assert whole(bytes(other)) != whole(bytes_)


def test_places_count() -> None:
    assert whole(b"a" * 8 + b"b" * 8) != whole(b"b" * 8 + b"a" * 8)
    assert whole(bytes(8)) != whole(bytes(16))


def test_the_ledger_tells_once_when_a_tensor_is_complete() -> None:
    finished: list[tuple[int, str | None]] = []
    tensors = [
        OutputTensor("a", "U8", (10,), 0, 20, 10, ()),
        OutputTensor("none", "U8", (0,), 0, 30, 0, ()),
        OutputTensor("b", "U8", (16,), 0, 30, 16, ()),
        OutputTensor("c", "U8", (4,), 1, 8, 4, ()),
    ]
    ledger = Ledger(tensors, lambda index, value: finished.append((index, value)))
    ledger.wrote(0, 25, memoryview(b"56789"))
    ledger.wrote(0, 38, memoryview(b"x" * 8))
    assert finished == []
    ledger.wrote(0, 20, memoryview(b"01234"))
    assert finished == [(0, naive(b"0123456789"))]
    ledger.copied(0, 30, 8)
    ledger.wrote(1, 8, memoryview(b"cccc"))
    assert finished[1:] == [(2, None), (3, naive(b"cccc"))]


def test_confirm(tmp_path: Path) -> None:
    data = bytes(range(256)) * 900
    path = tmp_path / "f"
    path.write_bytes(b"head" + data)
    right = Stored(0, str(path), 4, len(data), naive(data))
    shifted = Stored(1, str(path), 5, len(data) - 1, naive(data))
    short = Stored(2, str(path), 5, len(data), naive(data))
    gone = Stored(3, str(tmp_path / "gone"), 0, 1, naive(b"x"))
    unknown = Stored(4, str(path), 4, len(data), None)
    assert confirm([right, shifted, short, gone, unknown], 3) == {0}
