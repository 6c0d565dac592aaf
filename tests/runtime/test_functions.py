"""`exp`, `log`, `sin` and their like in float32 on the CPU: how near they are to the numbers meant,
and what becomes of edges. The compiled ones are mergec's own; torch's stand in where there are
none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from compiled import skip_without_a_compiler
from mergec.compiler.ops.table import OPS, SCALARS
from mergec.runtime.native.library import STEP, kernels
from mergec.runtime.native.range_reduction import PARTS
from mergec.runtime.portable.elementwise import ELEMENTWISE_CPU
from mergec.runtime.portable.values import BlockValue
from numpy.typing import NDArray

N = 80_077
EDGES = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 1e-45, -1e-45, 1e-40, 3e38, 1e9]
EDGES += [88.72284, 88.7229, -87.4, -103.97, -103.98, 16777217.0, 1.5, -2.5]
FUNCTIONS = {
    "exp": np.exp, "log": np.log, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "acos": np.arccos, "pow": np.power,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _built() -> None:
    skip_without_a_compiler()


def computed(name: str, *args: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """By the compiled kernels, of blocks and numbers."""
    found = kernels()
    assert found is not None
    forms = "".join("v" if isinstance(a, np.ndarray) else "n" for a in args)
    blocks = [a.ctypes.data if isinstance(a, np.ndarray) else 0 for a in (*args, 0.0)]
    numbers = [a if isinstance(a, float) else 0.0 for a in (*args, 0.0)]
    out = np.empty_like(next(a for a in args if isinstance(a, np.ndarray)))
    step = np.zeros(1, STEP)
    places = (out.ctypes.data, *blocks[:2], PARTS.ctypes.data)
    step[0] = (found.instructions[f"{name}_{forms}"], *places, *numbers[:2], 0, 0, 0)
    found.run(step.ctypes.data, 1, 0, out.size, out.size)
    return out


def torchs(name: str, *args: NDArray[np.float32]) -> NDArray[np.float32]:
    """By the portable backend."""
    out = torch.empty(args[0].size)
    block = BlockValue(0, out.numel(), torch.empty(OPS[name].fixed, dtype=torch.uint8))
    ELEMENTWISE_CPU[name](block, out, tuple(map(torch.from_numpy, args)), {})
    made: NDArray[np.float32] = out.numpy()
    return made


def apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many float32 numbers lie between them, and one; 0 for two NaNs."""
    words = [x.view(np.int32).astype(np.int64) for x in (a, b)]
    first, second = (np.where(w < 0, -(w & 0x7FFFFFFF), w) for w in words)
    both = np.isnan(a) & np.isnan(b)
    return np.where(both, 0, np.abs(first - second))


def arguments(kind: str, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    if kind == "patterns":
        return rng.integers(0, 1 << 32, N, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x: NDArray[np.float32] = (rng.standard_normal(N) * {"small": 1e-3, "near": 1.0, "far": 60.0}[kind]).astype(
        np.float32
    )
    return x


@pytest.mark.parametrize("kind", ["small", "near", "far", "patterns"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_within_one_unit_in_the_last_place_and_nearly_always_the_nearest(name: str, kind: str) -> None:
    args = [arguments(kind, i) for i in range(OPS[name].arity)]
    if name in ("log", "pow") and kind != "patterns":
        args[0] = np.abs(args[0])
    got = computed(name, *args)
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](*(a.astype(np.float64) for a in args)).astype(np.float32)
    steps = apart(got, want)
    assert steps.max() <= 1
    assert np.count_nonzero(steps) <= 1


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"pow"}))
def test_edges(name: str) -> None:
    """As the host has them, signs of zeros and all."""
    x = np.array(EDGES, np.float32)
    with np.errstate(over="ignore"):
        want = np.array([SCALARS[name](float(v)) for v in x]).astype(np.float32)
    assert apart(computed(name, x), want).max() == 0
    if name in ("sin", "tanh"):
        assert np.signbit(computed(name, np.array([-0.0], np.float32)))[0]


def test_edges_of_powers() -> None:
    x, y = (a.astype(np.float32).ravel() for a in np.meshgrid(EDGES, EDGES))
    with np.errstate(over="ignore"):
        want = np.array([SCALARS["pow"](float(a), float(b)) for a, b in zip(x, y, strict=True)]).astype(np.float32)
    got = computed("pow", x, y)
    alike = (got.view(np.int32) == want.view(np.int32)) | (np.isnan(got) & np.isnan(want))
    assert alike.all(), [(x[i], y[i], got[i], want[i]) for i in np.flatnonzero(~alike)]


def test_a_number_is_a_block_of_it() -> None:
    x = np.abs(arguments("near", 0))
    for value in (0.3, 3.0, -1.0, math.inf):
        block = np.full_like(x, value)
        assert np.array_equal(computed("pow", x, value), computed("pow", x, block), equal_nan=True)
        assert np.array_equal(computed("pow", value, x), computed("pow", block, x), equal_nan=True)


@pytest.mark.parametrize("function", [np.sin, np.cos])
def test_numbers_next_to_multiples_of_a_quarter_turn(function: Callable[..., NDArray[np.float64]]) -> None:
    """Where the most is lost, up to numbers of whose turns a float64 has not the first digit."""
    k = np.arange(1, 200_000, 7, dtype=np.float64)
    x = np.concatenate(
        [(k * (math.pi / 2)).astype(np.float32), np.float32(2.0) ** np.arange(-149, 128, dtype=np.float32)]
    )
    with np.errstate(all="ignore"):
        want = function(x.astype(np.float64)).astype(np.float32)
    assert apart(computed(function.__name__, x), want).max() <= 1


def test_parts_of_turns_are_exact_times_a_mantissa() -> None:
    mantissa = float((1 << 24) - 1)
    for exponent in range(255):
        a, b, c = PARTS[:, exponent].tolist()
        for part, bits in ((a, 27), (b, 56)):
            assert (part * 2.0**bits).is_integer()
            assert int(part * 2.0**bits) * int(mantissa) == int(part * mantissa * 2.0**bits)
        assert 0 <= c < 2.0**-56
    assert np.isnan(PARTS[:, 255]).all()


@pytest.mark.parametrize("kind", ["small", "near", "far"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_torchs_are_within_some_units_in_the_last_place(name: str, kind: str) -> None:
    """What machines without compiled kernels get. Near a zero of the function it is as many units
    of 1."""
    args = [arguments(kind, i) for i in range(OPS[name].arity)]
    if name in ("log", "pow"):
        args[0] = np.abs(args[0])
    got, ours = torchs(name, *args), computed(name, *args)
    with np.errstate(invalid="ignore"):
        near = np.abs(got.astype(np.float64) - ours.astype(np.float64)) <= 4 * 2.0**-24
    assert np.all(near | (apart(got, ours) <= 4))


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"pow"}))
def test_torchs_know_the_edges(name: str) -> None:
    x = np.array(EDGES, np.float32)
    got, ours = torchs(name, x), computed(name, x)
    assert np.array_equal(np.isnan(got), np.isnan(ours))
    assert np.array_equal(np.isinf(got), np.isinf(ours))
