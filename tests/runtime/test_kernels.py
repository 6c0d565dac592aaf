"""Kernels one by one: complete tables, the two forms of each kernel agree, random bits as
published."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mergec.compiler.ops.table import OPS
from mergec.compiler.plan.plan import CHUNK, Extent, Gather, Run, Stream
from mergec.runtime.portable import reduce
from mergec.runtime.portable.elementwise import ELEMENTWISE, ELEMENTWISE_CPU
from mergec.runtime.portable.random import STEP
from mergec.runtime.portable.reduce import FEEDS, _halves
from mergec.runtime.portable.values import BlockValue, ScalarValue, Value
from mergec.runtime.reduce.reducer import Threshold
from mergec.runtime.reduce.reducers import REDUCERS
from mergec.runtime.stream.ranges import GatherParts, file_ranges
from profiles import examples

COMPUTE = [torch.float32, torch.float64]


def block(count: int, first: int = 0) -> BlockValue:
    return BlockValue(first, count, torch.empty(64 * count + 2048, dtype=torch.uint8))


def number(value: float, dtype: torch.dtype = torch.float32) -> ScalarValue:
    return ScalarValue(value, torch.tensor(value, dtype=dtype))


POSITIONED = {op.name for op in OPS.values() if op.attributes}
"""Ops that need to know where their elements lie; they mean nothing on numbers."""


def special(dtype: torch.dtype, seed: int) -> torch.Tensor:
    x = torch.randn(CHUNK + 37, generator=torch.Generator().manual_seed(seed)).to(dtype)
    edges = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 1e-45, 3e38], dtype=dtype)
    pairs = torch.cartesian_prod(edges, edges)[:, seed % 2]
    x[: pairs.numel()] = pairs
    return x


@pytest.mark.parametrize("dtype", COMPUTE)
@pytest.mark.parametrize("name", sorted(set(OPS) & set(ELEMENTWISE) - {"above"} - POSITIONED))
def test_the_cpu_forms_equal_the_general_ones(name: str, dtype: torch.dtype) -> None:
    op, x, y = OPS[name], special(dtype, 0), special(dtype, 1)
    mask, other = x > y, x == y
    blocks: tuple[Value, ...] = (x, y)[: op.arity]
    if name == "where":
        blocks = (mask, x, y)
    elif name in ("and", "or", "not", "number"):
        blocks = (mask, other)[: op.arity]
    variants: list[tuple[Value, ...]] = [blocks]
    if op.arity > 1 and name not in ("and", "or"):
        variants += [(*blocks[:-1], number(0.3, dtype)), (*blocks[:-2], number(0.0, dtype), blocks[-1])]
    for args in variants:
        got, want = (torch.empty(x.numel(), dtype=torch.bool if op.result == "mask" else dtype) for _ in range(2))
        ELEMENTWISE_CPU[name](block(x.numel()), got, args, {})
        ELEMENTWISE[name](block(x.numel()), want, args, {})
        if name in ("sqrt", "pow"):  # torch's roots aren't always the nearest, and its powers depend on blocks
            assert torch.allclose(got, want, rtol=1e-6, atol=0, equal_nan=True)
            want = got.clone()
        assert got.numpy().tobytes() == want.numpy().tobytes()
        # the result may take the place of any argument of its kind
        for i, argument in enumerate(args if op.in_place else ()):
            if isinstance(argument, torch.Tensor) and argument.dtype == got.dtype:
                place = argument.clone()
                ELEMENTWISE_CPU[name](block(x.numel()), place, (*args[:i], place, *args[i + 1 :]), {})
                assert place.numpy().tobytes() == want.numpy().tobytes()


@pytest.mark.parametrize("dtype", COMPUTE)
@pytest.mark.parametrize("name", ["exp", "log", "sin", "cos", "tanh", "acos", "pow"])
def test_functions_know_no_blocks_and_no_threads(name: str, dtype: torch.dtype) -> None:
    n, threads = 3 * CHUNK + 11, torch.get_num_threads()
    args = [torch.rand(n, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(OPS[name].arity)]
    made = []
    try:
        for count, size in ((1, n), (2, n), (1, 1001), (1, 37 * 64 + 5), (2, CHUNK + 77)):
            torch.set_num_threads(count)
            out = torch.empty(n, dtype=dtype)
            for first in range(0, n, size):
                part = tuple(a[first : first + size] for a in args)
                ELEMENTWISE_CPU[name](block(part[0].numel(), first), out[first : first + size], part, {})
            made.append(out)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(out, made[0]) for out in made)


@pytest.mark.parametrize("dtype", COMPUTE)
def test_ieee_and_signs(dtype: torch.dtype) -> None:
    x = torch.tensor([1.0, -1.0, 0.0, -0.0, math.inf], dtype=dtype)
    out = torch.empty_like(x)
    ELEMENTWISE_CPU["div"](block(5), out, (x, number(0.0, dtype)), {})
    assert torch.equal(
        torch.nan_to_num(out, nan=7.0, posinf=8.0, neginf=9.0).int(), torch.tensor([8, 9, 7, 7, 8]).int()
    )
    ELEMENTWISE_CPU["sign"](block(5), out, (x,), {})
    assert out.tolist() == [1, -1, 0, 0, 1]


def test_numbers_are_rounded_to_the_compute_dtype_first() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    out = torch.empty_like(x)
    for name, reference in (("mul", numpy.multiply), ("add", numpy.add), ("div", numpy.divide)):
        ELEMENTWISE_CPU[name](block(1000), out, (x, number(0.1)), {})
        assert numpy.array_equal(out.numpy(), reference(x.numpy(), numpy.float32(0.1)))


def finalise(state: int) -> int:
    """The full splitmix64 finaliser of one state."""
    z = state % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_splitmix64_gives_its_published_words() -> None:
    words = [finalise((i + 1) * STEP) for i in range(3)]
    assert words == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@examples(40)
@given(
    key=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40).map(lambda n: n * CHUNK),
    p=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, 2**-24, 1 - 2**-24, -1.0, 2.0, math.nan])),
    dtype=st.sampled_from(COMPUTE),
)
def test_bernoulli_compares_the_counters_word(key: int, first: int, p: float, dtype: torch.dtype) -> None:
    count = 200
    rounded = torch.tensor(p, dtype=dtype).item()
    want = [(finalise(key + (first + i + 1) * STEP) >> 40) * 2.0**-24 < rounded for i in range(count)]
    for kernels in (ELEMENTWISE, ELEMENTWISE_CPU):
        for argument in (number(p, dtype), torch.full((count,), p, dtype=dtype)):
            out = torch.empty(count, dtype=torch.bool)
            kernels["bernoulli"](block(count, first), out, (argument,), {"key": key})
            assert out.tolist() == want


def test_bernoulli_keeps_about_its_share_and_knows_no_blocks() -> None:
    n = 5 * CHUNK + 11
    whole, parts = torch.empty(n, dtype=torch.bool), torch.empty(n, dtype=torch.bool)
    kernel = ELEMENTWISE_CPU["bernoulli"]
    kernel(block(n), whole, (number(0.3),), {"key": 5})
    for first in range(0, n, 2 * CHUNK):
        count = min(2 * CHUNK, n - first)
        kernel(block(count, first), parts[first : first + count], (number(0.3),), {"key": 5})
    assert torch.equal(whole, parts)
    assert abs(whole.float().mean().item() - 0.3) < 0.005


@pytest.fixture(params=["cpu", "accelerator"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which forms of the reductions run; both can on the CPU."""
    if request.param == "accelerator":
        monkeypatch.setattr(reduce, "_all_cpu", reduce._window)
        monkeypatch.setattr(reduce, "_few_cpu", reduce._window)
        monkeypatch.setattr(reduce, "_ties_cpu", reduce._ties)
    return str(request.param)


@pytest.mark.parametrize("levels", ["coarse", "fine"])
@pytest.mark.parametrize("dtype", COMPUTE)
@pytest.mark.parametrize("k", [0, 1, 1000, CHUNK, 2 * CHUNK + 50, 3 * CHUNK])
@pytest.mark.usefixtures("form")
def test_selection_and_above(dtype: torch.dtype, k: int, levels: str) -> None:
    """The blocks come in any order, from two lanes with states of their own."""
    n = 2 * CHUNK + 99
    x = (torch.randn(n, generator=torch.Generator().manual_seed(k)) * 4).round().to(dtype)
    if levels == "fine":
        # many patterns that agree but for the last 16 bits, each many times
        width = torch.int32 if dtype == torch.float32 else torch.int64
        steps = (x.to(width) * 4321 + torch.arange(n) % 500) % 60000
        x = (torch.ones(n, dtype=dtype).view(width) + steps.to(width)).view(dtype)
    reducer = REDUCERS["threshold"]({"k": k}, n, 8 * dtype.itemsize)
    states = [torch.empty(OPS["threshold"].state, dtype=torch.uint8) for _ in range(2)]
    scratch = torch.empty(64 * CHUNK, dtype=torch.uint8)
    for _ in range(6):
        if reducer.done:
            break
        for lane, first in enumerate((2 * CHUNK, 0, CHUNK)):
            part = x[first : first + CHUNK]
            FEEDS["threshold"](reducer, BlockValue(first, part.numel(), scratch), (part,), states[lane % 2])
        reducer.finish_round()
    threshold = reducer.result()
    assert isinstance(threshold, Threshold)
    want = numpy.zeros(n, bool)
    want[numpy.argsort(-numpy.abs(x.numpy()), kind="stable")[:k]] = True
    for kernels in (ELEMENTWISE, ELEMENTWISE_CPU):
        for size in (CHUNK, 2 * CHUNK, n):
            out = torch.empty(n, dtype=torch.bool)
            for first in range(0, n, size):
                part = x[first : first + size]
                kernels["above"](block(part.numel(), first), out[first : first + size], (part, threshold), {})
            assert numpy.array_equal(out.numpy(), want)


@pytest.mark.parametrize("count", [1, 7, CHUNK, 2 * CHUNK + 1001])
def test_an_accelerators_sums_know_no_blocks(count: int) -> None:
    x = torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [_halves(x[first : first + CHUNK].clone()) for first in range(0, count, CHUNK)]
    assert _halves(x.clone()) == [s for part in parts for s in part]
    assert math.fsum(s for part in parts for s in part) == pytest.approx(x.sum().item(), abs=1e-9)


def test_ranges_of_a_stream() -> None:
    from_two = Stream("F32", 10, (Extent(0, 100, 24), Extent(1, 8, 16)))
    assert list(file_ranges(from_two, 0, 10)) == [(0, 100, 24), (1, 8, 16)]
    assert list(file_ranges(from_two, 5, 3)) == [(0, 120, 4), (1, 8, 8)]
    assert list(file_ranges(from_two, 6, 4)) == [(1, 8, 16)]
    assert list(file_ranges(from_two, 10, 0)) == []
    with pytest.raises(ValueError, match="shorter"):
        list(file_ranges(from_two, 6, 5))


def test_parts_of_a_gather() -> None:
    gather = Gather(24, 4, (), (Run(2, ((0, 5),)), Run(1, ()), Run(3, ((0, 0), (1, 9)))))
    found = GatherParts(gather)
    parts = [(p.first, p.count, p.terms) for p in found.of(6, 12)]
    assert parts == [(0, 2, ((0, 26),)), (2, 4, ()), (6, 6, ((0, 0), (1, 36)))]
    assert [p.terms for p in found.of(18, 6)] == [((0, 6), (1, 42))]
    with pytest.raises(ValueError, match="fewer"):
        list(found.of(20, 5))
