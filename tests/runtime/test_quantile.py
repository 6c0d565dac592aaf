"""Quantiles by bit pattern, and sums of columns: values, in the forms for the CPU and for
accelerators."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from mergec.compiler.ops.table import OPS
from mergec.compiler.plan.plan import CHUNK
from mergec.runtime.portable import reduce
from mergec.runtime.portable.opaque import OPAQUE
from mergec.runtime.portable.reduce import FEEDS
from mergec.runtime.portable.values import BlockValue
from mergec.runtime.reduce.reducers import REDUCERS

N = 2 * CHUNK + 99


def numbers(kind: str, dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    if kind == "coarse":
        return (x * 4).round()
    if kind == "special":
        edges = [0.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, 1e-45, -1e-45, 3e38]
        return torch.tensor(edges, dtype=dtype).repeat(N // len(edges) + 1)[:N]
    return x if kind == "fine" else -1 - x.abs() * 1e-6  # "close": all begin alike


def selected(x: torch.Tensor, k: int) -> float:
    """The blocks come in any order, from two lanes with states of their own."""
    reducer = REDUCERS["kth_smallest"]({"k": k}, x.numel(), 8 * x.dtype.itemsize)
    states = [torch.empty(OPS["kth_smallest"].state, dtype=torch.uint8) for _ in range(2)]
    scratch = torch.empty(17 * CHUNK, dtype=torch.uint8)
    for _ in range(4):
        if reducer.done:
            break
        for lane, first in enumerate((2 * CHUNK, 0, CHUNK)):
            part = x[first : first + CHUNK]
            FEEDS["kth_smallest"](reducer, BlockValue(first, part.numel(), scratch), (part,), states[lane % 2])
        reducer.finish_round()
    assert reducer.done
    result = reducer.result()
    assert isinstance(result, float)
    return result


@pytest.mark.parametrize("form", ["cpu", "accelerator"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["fine", "coarse", "close", "special"])
def test_the_number_at_a_place_in_order(
    kind: str, dtype: torch.dtype, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "accelerator":
        monkeypatch.setattr(reduce, "_order_cpu", reduce._order_device)
    x = numbers(kind, dtype)
    order = numpy.sort(x.numpy())
    for k in (0, N // 2, N - 1):
        got, want = selected(x, k), float(order[k])
        assert got == want or (math.isnan(got) and math.isnan(want))


def test_of_one_and_of_nothing() -> None:
    for numel, want in ((1, 2.5), (0, 0.0)):
        reducer = REDUCERS["kth_smallest"]({"k": 0}, numel, 32)
        while not reducer.done:
            state = torch.empty(OPS["kth_smallest"].state, dtype=torch.uint8)
            FEEDS["kth_smallest"](
                reducer, BlockValue(0, 1, torch.empty(17, dtype=torch.uint8)), (torch.tensor([2.5]),), state
            )
            reducer.finish_round()
        assert reducer.result() == want


@pytest.mark.parametrize(
    "shape", [(), (5,), (0, 4), (3, 0), (7, 1), (1, 7), (2, 3, 4, 5), (CHUNK + 9, 2), (3, CHUNK + 9)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_column_sum(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    out = torch.empty_like(x)
    OPAQUE["column_sum"]((x,), (), out, {})
    want = x.double().sum(0, keepdim=True).expand(shape) if shape else x
    torch.testing.assert_close(out.double(), want.double(), rtol=1e-6, atol=1e-9 if dtype == torch.float64 else 1e-6)


def test_column_sums_do_not_depend_on_threads() -> None:
    x = torch.randn(3001, 517, generator=torch.Generator().manual_seed(2))
    made, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            out = torch.empty_like(x)
            OPAQUE["column_sum"]((x,), (), out, {})
            made.append(out)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*made)
