"""Ranks along rows, as compiled: numpy's stable order, whatever the numbers are like and however
long a row is."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import skip_without_a_compiler
from hypothesis import given
from hypothesis import strategies as st
from mergec.runtime.native.library import STEP, kernels
from numpy.typing import NDArray
from profiles import examples

EDGES = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-45, -1e-45, 3e38, 1e-40]


@pytest.fixture(autouse=True, scope="module")
def _built() -> None:
    skip_without_a_compiler()


def ranked(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the instruction makes of rows; nothing behind its scratch is touched, and it may work in
    place."""
    found = kernels()
    assert found is not None
    row, guard = x.shape[1], 64
    scratch = np.full(16 * row + guard, 77, np.uint8)
    apart, within = np.full_like(x, -1), x.copy()
    for source, out in ((x, apart), (within, within)):
        step = np.zeros(1, STEP)
        places = (out.ctypes.data, source.ctypes.data, 0, scratch.ctypes.data)
        step[0] = (found.instructions["row_rank_v"], *places, 0.0, 0.0, row, 0, 0)
        found.run(step.ctypes.data, 1, 0, x.size, x.size)
    assert np.all(scratch[16 * row :] == 77)
    assert np.array_equal(apart, within)
    return apart


def wanted(x: NDArray[np.float32]) -> NDArray[np.float32]:
    order = np.argsort(x, axis=1, kind="stable")
    ranks = np.arange(x.shape[1], dtype=np.float32) / np.float32(x.shape[1] - 1)
    result = np.empty_like(x)
    np.put_along_axis(result, order, np.broadcast_to(ranks, x.shape), axis=1)
    return result


def rounded(x: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """With the lowest bits cleared."""
    return (x.view(np.uint32) >> bits << bits).view(np.float32)


def kind(name: str, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    normal = rng.standard_normal(shape).astype(np.float32)
    small = rounded(normal / 50, 16)
    match name:
        case "normal":
            return normal
        case "magnitudes":
            return np.abs(normal)
        case "changes":  # of weights in bfloat16: few distinct magnitudes, some 0
            return np.abs(rounded(small + rng.standard_normal(shape).astype(np.float32) / 5000, 16) - small)
        case "equal":
            return np.full(shape, normal[0, 0])
        case "zeros":
            return np.zeros(shape, np.float32)
        case "few":
            return np.rint(normal)
        case "sorted":
            return np.sort(normal)
        case "reversed":
            return np.ascontiguousarray(np.sort(normal)[:, ::-1])
        case "edges":
            return rng.choice(np.array(EDGES, np.float32), shape)
        case "edges within":
            normal[:, rng.integers(0, shape[1], 3)] = rng.choice(np.array(EDGES, np.float32), 3)
            return normal
        case "subnormal":
            return rng.integers(0, 5000, shape).astype(np.uint32).view(np.float32)
        case "patterns":
            return rng.integers(0, 1 << 32, shape).astype(np.uint32).view(np.float32)
        case "crowded":  # one far from the others, which are many to a code and of decreasing size
            x = np.sort(1 + rng.random(shape).astype(np.float32))[:, ::-1]
            x[:, -1] = 1e30
            return np.ascontiguousarray(x)
    raise AssertionError(name)


KINDS = [
    "normal", "magnitudes", "changes", "equal", "zeros", "few", "sorted", "reversed", "edges", "edges within",
    "subnormal", "patterns", "crowded",
]  # fmt: skip


LENGTHS = [2, 3, 17, 63, 64, 65, 127, 128, 255, 256, 257, 768, 1000, 2048, 3072, 8192, 14336, 65536]


@pytest.mark.parametrize("row", LENGTHS)
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_row(name: str, row: int) -> None:
    x = kind(name, (2, row), np.random.default_rng(row))
    assert np.array_equal(ranked(x), wanted(x))


@examples(200)
@given(
    row=st.integers(2, 5000), rows=st.integers(1, 3), name=st.sampled_from(KINDS),
    bits=st.integers(0, 20), seed=st.integers(0, 1 << 30),
)  # fmt: skip
def test_any_row(row: int, rows: int, name: str, bits: int, seed: int) -> None:
    x = rounded(kind(name, (rows, row), np.random.default_rng(seed)), bits)
    assert np.array_equal(ranked(x), wanted(x))


def test_the_only_element_of_a_row() -> None:
    assert np.all(ranked(np.array([[1.0], [np.nan], [0.0]], np.float32)) == 0.5)
