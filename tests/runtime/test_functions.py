"""`exp`, `log`, `sin` and their like on the CPU: how near they are to the numbers meant, and what becomes of edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from mergec.compiler.ops.scalars import SCALARS
from mergec.compiler.ops.table import OPS
from mergec.runtime.portable.elementwise import ELEMENTWISE_CPU
from mergec.runtime.portable.transcendental import PIECE, WORK
from mergec.runtime.portable.values import Block, Number, Value
from mergec.runtime.stream.range_reduction import PARTS
from numpy.typing import NDArray

N = 20 * PIECE + 77
EDGES = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 1e-45, -1e-45, 1e-40, 3e38, 1e9]
EDGES += [88.72284, 88.7229, -87.4, -103.97, -103.98, 16777217.0, 1.5, -2.5]
FUNCTIONS = {
    "exp": np.exp, "log": np.log, "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "acos": np.arccos, "pow": np.power,
}  # fmt: skip


def computed(name: str, *args: Value) -> NDArray[np.float32]:
    count = next(a.numel() for a in args if isinstance(a, torch.Tensor))
    out, scratch = torch.empty(count), torch.empty(OPS[name].fixed, dtype=torch.uint8)
    ELEMENTWISE_CPU[name](Block(0, count, scratch), out, args, {})
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
    got = computed(name, *map(torch.from_numpy, args))
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
    assert apart(computed(name, torch.from_numpy(x)), want).max() == 0
    if name in ("sin", "tanh"):
        assert np.signbit(computed(name, torch.tensor([-0.0])))[0]


def test_edges_of_powers() -> None:
    x, y = (a.astype(np.float32).ravel() for a in np.meshgrid(EDGES, EDGES))
    with np.errstate(over="ignore"):
        want = np.array([SCALARS["pow"](float(a), float(b)) for a, b in zip(x, y, strict=True)]).astype(np.float32)
    got = computed("pow", torch.from_numpy(x), torch.from_numpy(y))
    alike = (got.view(np.int32) == want.view(np.int32)) | (np.isnan(got) & np.isnan(want))
    assert alike.all(), [(x[i], y[i], got[i], want[i]) for i in np.flatnonzero(~alike)]


def test_a_number_is_a_block_of_it() -> None:
    x = torch.from_numpy(arguments("near", 0)).abs()
    for value in (0.3, 3.0, -1.0, math.inf):
        number, block = Number(value, torch.tensor(value)), torch.full_like(x, value)
        assert np.array_equal(computed("pow", x, number), computed("pow", x, block), equal_nan=True)
        assert np.array_equal(computed("pow", number, x), computed("pow", block, x), equal_nan=True)


@pytest.mark.parametrize("function", [np.sin, np.cos])
def test_numbers_next_to_multiples_of_a_quarter_turn(function: Callable[..., NDArray[np.float64]]) -> None:
    """Where the most is lost, up to numbers of whose turns a float64 has not the first digit."""
    k = np.arange(1, 200_000, 7, dtype=np.float64)
    x = np.concatenate(
        [(k * (math.pi / 2)).astype(np.float32), np.float32(2.0) ** np.arange(-149, 128, dtype=np.float32)]
    )
    with np.errstate(all="ignore"):
        want = function(x.astype(np.float64)).astype(np.float32)
    assert apart(computed(function.__name__, torch.from_numpy(x)), want).max() <= 1


def test_parts_of_turns_are_exact_times_a_mantissa() -> None:
    mantissa = float((1 << 24) - 1)
    for exponent in range(255):
        a, b, c = PARTS[:, exponent].tolist()
        for part, bits in ((a, 27), (b, 56)):
            assert (part * 2.0**bits).is_integer()
            assert int(part * 2.0**bits) * int(mantissa) == int(part * mantissa * 2.0**bits)
        assert 0 <= c < 2.0**-56
    assert np.isnan(PARTS[:, 255]).all()


def test_float64_is_left_to_torch() -> None:
    x = torch.randn(1000, dtype=torch.float64)
    out = torch.empty_like(x)
    ELEMENTWISE_CPU["exp"](Block(0, 1000, torch.empty(0, dtype=torch.uint8)), out, (x,), {})
    assert torch.equal(out, torch.exp(x))


def test_the_scratch_is_what_is_counted() -> None:
    assert {OPS[name].fixed for name in FUNCTIONS} == {8 * WORK * PIECE}
