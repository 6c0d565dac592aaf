"""Plans over files in memory: right numbers, the same bytes whatever the blocking, exact
accounting, clean stops."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from dataclasses import replace

import numpy
import pytest
import torch
from draft_plans import DTYPES, Draft, MemoryInputs, MemoryOutputs, Seen
from hypothesis import given
from hypothesis import strategies as st
from mergec.compiler.ops.table import SCALARS
from mergec.compiler.plan.plan import (
    CHUNK,
    Allocation,
    Constant,
    Copy,
    Extent,
    Gather,
    Held,
    Instruction,
    Load,
    Mask,
    OutputTensor,
    Pass,
    Plan,
    Reduction,
    Register,
    Run,
    Scalar,
    ScalarCode,
    Step,
    ToBuffer,
)
from mergec.runtime.execute.executor import Cancelled, execute
from profiles import examples

SIZES_TRIED = [0, 1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5]
R, C = Register, Constant


def values(data: bytes, dtype: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=DTYPES[dtype]) if data else torch.empty(0, dtype=DTYPES[dtype])


def random(numel: int, dtype: str, seed: int = 0) -> torch.Tensor:
    return torch.randn(numel, generator=torch.Generator().manual_seed(seed)).to(DTYPES[dtype])


def op(name: str, out: Register | Mask, *args: Register | Mask | Scalar | Constant, **attributes: int) -> Instruction:
    return Instruction(name, out, args, tuple(attributes.items()))


def everything(draft: Draft, a: torch.Tensor, b: torch.Tensor, k: int, out: str) -> None:
    """Sums, a dot, a threshold, chance and most kinds of kernels, in two passes."""
    numel = a.numel()
    x, y = draft.input(a, split=numel // 3), draft.input(b)
    draft.add(
        numel,
        [x, y],
        [op("sub", R(2), R(0), R(1)), op("lt", Mask(0), R(2), C(0.1))],
        reductions=[
            Reduction("sum", Scalar(0), (R(2),)),
            Reduction("dot", Scalar(1), (R(0), R(1))),
            Reduction("threshold", Scalar(2), (R(2),), (("k", k),)),
            Reduction("count", Scalar(3), (Mask(0),)),
            Reduction("maximum", Scalar(4), (R(2),)),
            Reduction("threshold", Scalar(5), (R(0),), (("k", numel // 2),)),
        ],
        scalars=[ScalarCode("div", Scalar(6), (Scalar(1), C(3.0)))],
        stores=[draft.output(2, out, numel)],
    )
    draft.add(
        numel,
        [x, y],
        [
            op("sub", R(2), R(0), R(1)),
            op("above", Mask(0), R(2), Scalar(2)),
            op("where", R(2), Mask(0), R(2), C(0.0)),
            op("above", Mask(1), R(0), Scalar(5)),
            op("where", R(0), Mask(1), C(1.5), R(0)),
            op("bernoulli", Mask(0), C(0.3), key=99),
            op("number", R(3), Mask(0)),
            op("tanh", R(1), R(1)),
            op("mul", R(3), R(3), R(1)),
            op("mul", R(0), R(0), Scalar(6)),
            op("add", R(2), R(2), R(3)),
            op("add", R(2), R(2), R(0)),
        ],
        stores=[draft.output(2, out, numel)],
    )


@examples(25)
@given(
    numel=st.one_of(st.sampled_from(SIZES_TRIED), st.integers(0, 4 * CHUNK)),
    dtypes=st.tuples(*[st.sampled_from(sorted(DTYPES))] * 3),
    compute=st.sampled_from(["F32", "F64"]),
    density=st.floats(0, 1),
)
def test_bytes_depend_on_neither_blocks_nor_lanes(
    numel: int, dtypes: tuple[str, str, str], compute: str, density: float
) -> None:
    a, b = random(numel, dtypes[0], 1), random(numel, dtypes[1], 2)
    results = []
    for blocks, lanes in ((1, 1), (1, 3), (2, 1), (3, 2), (8, 2)):
        draft = Draft(compute, lanes, blocks * CHUNK)
        everything(draft, a, b, int(density * numel), dtypes[2])
        seen = Seen()
        outcome, files = draft.run(seen)
        results.append((files, outcome.non_finite))
        assert seen.host == [step.host for step in draft.steps]
        assert outcome.peak_host == draft.plan().peak_host
    assert all(r == results[0] for r in results)


@examples(30)
@given(
    numel=st.sampled_from(SIZES_TRIED),
    dtypes=st.tuples(*[st.sampled_from(sorted(DTYPES))] * 3),
    compute=st.sampled_from(["F32", "F64"]),
    blocks=st.integers(1, 3),
    lanes=st.integers(1, 3),
)
def test_linear(numel: int, dtypes: tuple[str, str, str], compute: str, blocks: int, lanes: int) -> None:
    a, b = random(numel, dtypes[0], 1), random(numel, dtypes[1], 2)
    draft = Draft(compute, lanes, blocks * CHUNK)
    draft.add(
        numel,
        [draft.input(a), draft.input(b)],
        [op("mul", R(0), C(0.3), R(0)), op("mul", R(1), R(1), C(0.7)), op("add", R(0), R(0), R(1))],
        stores=[draft.output(0, dtypes[2], numel)],
    )
    seen = Seen()
    _, (data,) = draft.run(seen)
    t = DTYPES[compute]
    want = a.to(t) * torch.tensor(0.3, dtype=t) + b.to(t) * torch.tensor(0.7, dtype=t)
    assert torch.equal(values(data, dtypes[2]), want.to(DTYPES[dtypes[2]]))
    assert seen.read == a.numel() * a.element_size() + b.numel() * b.element_size()
    assert seen.written == len(data)


@pytest.mark.parametrize("compute", ["F32", "F64"])
@pytest.mark.parametrize("levels", [2, 40, 10**9])
@pytest.mark.parametrize("numel", [1, CHUNK - 1, 3 * CHUNK + 5])
@pytest.mark.parametrize("density", [0.0, 1e-4, 0.3, 0.5, 1.0])
def test_a_threshold_keeps_exactly_k_the_first_of_equals(compute: str, levels: int, numel: int, density: float) -> None:
    x = random(numel, compute, 3)
    if levels < 10**9:
        x = (x * levels / 8).round() / levels
    k = math.ceil(density * numel)
    draft = Draft(compute, 2, 2 * CHUNK)
    stream = draft.input(x)
    draft.add(numel, [stream], [], reductions=[Reduction("threshold", Scalar(0), (R(0),), (("k", k),))])
    draft.add(
        numel,
        [stream],
        [op("above", Mask(0), R(0), Scalar(0)), op("number", R(1), Mask(0))],
        stores=[draft.output(1, "F32", numel)],
    )
    _, (data,) = draft.run()
    want = numpy.zeros(numel, numpy.float32)
    want[numpy.argsort(-numpy.abs(x.numpy()), kind="stable")[:k]] = 1
    assert numpy.array_equal(values(data, "F32").numpy(), want)


def test_nan_ranks_above_all() -> None:
    x = torch.tensor([1.0, math.nan, -math.inf, 2.0, -math.nan])
    draft = Draft()
    stream = draft.input(x)
    draft.add(5, [stream], [], reductions=[Reduction("threshold", Scalar(0), (R(0),), (("k", 3),))])
    draft.add(
        5,
        [stream],
        [op("above", Mask(0), R(0), Scalar(0)), op("number", R(1), Mask(0))],
        stores=[draft.output(1, "F32", 5)],
    )
    assert values(draft.run()[1][0], "F32").tolist() == [0, 1, 1, 0, 1]


@pytest.mark.parametrize("numel", SIZES_TRIED)
def test_reductions(numel: int) -> None:
    a, b = random(numel, "F32", 1), random(numel, "F32", 2)
    draft = Draft(lanes=2)
    draft.add(
        numel,
        [draft.input(a), draft.input(b)],
        [op("gt", Mask(0), R(0), R(1))],
        reductions=[
            Reduction("sum", Scalar(0), (R(0),)),
            Reduction("dot", Scalar(1), (R(0), R(1))),
            Reduction("count", Scalar(2), (Mask(0),)),
            Reduction("maximum", Scalar(3), (R(0),)),
            Reduction("minimum", Scalar(4), (R(0),)),
        ],
    )
    for i in range(5):
        draft.add(
            1,
            [],
            [op("add", R(0), Scalar(i), C(0.0))],
            stores=[draft.output(0, "F64", 1)],
        )
    _, files = draft.run()
    x, y = a.double().numpy(), b.double().numpy()
    want = [
        x.sum(),
        (x * y).sum(),
        (x > y).sum(),
        x.max(initial=-math.inf),
        x.min(initial=math.inf),
    ]
    got = [values(f, "F64").item() for f in files]
    assert got == pytest.approx(want, rel=1e-6, abs=1e-4)


def test_sums_are_of_float64_and_exact_over_chunks() -> None:
    x = torch.full((4 * CHUNK,), 0.1, dtype=torch.float64)
    x[0], x[2 * CHUNK] = 1e30, -1e30
    draft = Draft("F64", block=4 * CHUNK)
    draft.add(x.numel(), [draft.input(x)], [], reductions=[Reduction("sum", Scalar(0), (R(0),))])
    draft.add(1, [], [op("add", R(0), Scalar(0), C(0.0))], stores=[draft.output(0, "F64", 1)])
    _, (data,) = draft.run()
    parts = []
    for chunk in x.numpy().reshape(-1, CHUNK):
        lanes = numpy.cumsum(chunk.reshape(-1, 64), axis=0)[-1]
        while lanes.size > 1:
            lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
        parts.append(float(lanes[0]))
    assert values(data, "F64").item() == math.fsum(parts)


def test_infinite_sums() -> None:
    for extra, want in ((1.0, math.inf), (-math.inf, math.nan), (math.nan, math.nan)):
        x = torch.zeros(2 * CHUNK)
        x[0], x[-1] = math.inf, extra
        draft = Draft()
        draft.add(x.numel(), [draft.input(x)], [], reductions=[Reduction("sum", Scalar(0), (R(0),))])
        draft.add(1, [], [op("add", R(0), Scalar(0), C(0.0))], stores=[draft.output(0, "F32", 1)])
        assert values(draft.run()[1][0], "F32").item() == pytest.approx(want, nan_ok=True)


def test_numbers_in_every_position() -> None:
    x = random(1000, "F32")
    draft = Draft()
    cases: list[tuple[list[Instruction], torch.Tensor]] = [
        ([op("sub", R(1), C(1.0), R(0))], 1 - x),
        ([op("div", R(1), C(1.0), R(0))], 1 / x),
        ([op("div", R(1), R(0), C(3.0))], x / torch.full_like(x, 3.0)),
        ([op("pow", R(1), C(2.0), R(0))], torch.pow(2.0, x.double()).float()),
        ([op("pow", R(1), R(0), C(2.0))], x * x),
        ([op("max", R(1), C(0.5), R(0))], x.clamp(min=0.5)),
        ([op("lt", Mask(0), C(0.0), R(0)), op("where", R(1), Mask(0), C(1.0), C(2.0))], torch.where(x > 0, 1.0, 2.0)),
        ([op("lt", Mask(0), C(0.0), R(0)), op("where", R(1), Mask(0), C(0.1), R(0))], torch.where(x > 0, 0.1, x)),
        (
            [op("lt", Mask(0), C(0.0), R(0)), op("where", R(0), Mask(0), C(0.1), R(0)), op("neg", R(1), R(0))],
            -torch.where(x > 0, 0.1, x),
        ),
        ([op("lt", Mask(0), C(0.0), R(0)), op("where", R(1), Mask(0), R(0), C(-0.0))], torch.where(x > 0, x, -0.0)),
        ([op("where", R(1), C(0.0), R(0), C(4.0))], torch.full_like(x, 4.0)),
        ([op("mul", R(1), C(2.0), C(4.0))], torch.full_like(x, 8.0)),
        (
            [
                op("lt", Mask(0), C(1.0), C(2.0)),
                op("and", Mask(0), Mask(0), C(1.0)),
                op("not", Mask(1), Mask(0)),
                op("number", R(1), Mask(1)),
            ],
            torch.zeros(1000),
        ),
    ]
    for code, _ in cases:
        draft.add(1000, [draft.input(x)], code, stores=[draft.output(1, "F32", 1000)])
    for data, (code, want) in zip(draft.run()[1], cases, strict=True):
        assert data == want.numpy().tobytes(), code


def test_a_masked_infinity_leaves_no_nan() -> None:
    draft = Draft()
    draft.add(
        3,
        [draft.input(torch.tensor([math.inf, math.nan, 1.0]))],
        [op("lt", Mask(0), C(5.0), C(1.0)), op("where", R(0), Mask(0), R(0), C(0.0))],
        stores=[draft.output(0, "F32", 3)],
    )
    assert values(draft.run()[1][0], "F32").tolist() == [0, 0, 0]


@pytest.mark.parametrize("lanes", [1, 2])
def test_gather_picks_averages_and_clears_rows(lanes: int) -> None:
    width, rows = 1000, 400
    a, b = random(rows * width, "BF16", 1), random(rows * width, "F32", 2)
    draft = Draft(lanes=lanes)
    runs = (
        Run(100, ((0, 50),)),
        Run(3, ()),
        Run(200, ((1, 7), (0, 11), (1, 0))),
        Run(1, ((1, 399),)),
    )
    numel = 304 * width
    gather = Gather(numel, width, (draft.input(a), draft.input(b)), runs)
    draft.add(numel, [gather], [], stores=[draft.output(0, "F32", numel)])
    x, y = a.float().view(rows, width), b.view(rows, width)
    want = torch.cat([x[50:150], torch.zeros(3, width), (y[7:207] + x[11:211] + y[:200]) / 3.0, y[399:]])
    outcome, (data,) = draft.run()
    assert data == want.numpy().tobytes()
    assert outcome.peak_host == draft.steps[0].host


def test_held_buffers_live_as_long_as_planned() -> None:
    x = random(3 * CHUNK, "BF16")
    draft = Draft(lanes=2)
    stream = draft.input(x)
    nbytes = x.numel() * 2
    step = Step(Load(stream, 0), (Allocation(0, "BF16", x.numel(), nbytes),), (), 0, nbytes, 0, nbytes, 0)
    draft.steps.append(step)
    draft.held = nbytes
    draft.add(
        x.numel(),
        [Held("BF16", x.numel(), 0)],
        [op("neg", R(0), R(0))],
        stores=[ToBuffer(R(0), 1)],
        allocate=[Allocation(1, "F32", x.numel(), 4 * x.numel())],
        release=[0],
    )
    draft.add(
        CHUNK,
        [Held("F32", CHUNK, 1, first=CHUNK)],
        [],
        stores=[draft.output(0, "F32", CHUNK)],
        release=[1],
    )
    seen = Seen()
    outcome, (data,) = draft.run(seen)
    assert data == (-x.float())[CHUNK : 2 * CHUNK].numpy().tobytes()
    assert seen.host == [s.host for s in draft.steps]
    assert outcome.peak_host == max(seen.host)


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_a_plan_that_says_less_than_it_needs_takes_fewer_lanes(lanes: int) -> None:
    """As many as there is memory for, and one in any case."""
    numel = 5 * CHUNK
    draft = Draft(lanes=3)
    x = random(numel, "F32")
    draft.add(numel, [draft.input(x)], [], stores=[draft.output(0, "F32", numel)])
    (step,) = draft.steps
    assert isinstance(step.action, Pass)
    for less in (0, 1):
        draft.steps[0] = replace(step, host=lanes * step.action.nbytes - less)
        outcome, (data,) = draft.run()
        assert data == x.numpy().tobytes()
        assert outcome.peak_host == max(1, lanes - less) * step.action.nbytes


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_non_finite_values_are_counted_as_written(dtype: str) -> None:
    x = torch.ones(3 * CHUNK, dtype=torch.float64)
    x[5], x[CHUNK], x[-1] = math.inf, math.nan, 1e6
    draft = Draft("F64", lanes=2)
    draft.add(x.numel(), [draft.input(x)], [], stores=[draft.output(0, dtype, x.numel())])
    assert draft.run()[0].non_finite == {"tensor 0": 3 if dtype == "F16" else 2}


def test_copies_need_no_torch() -> None:
    script = """
import sys
from mergec.compiler.plan.plan import *
from mergec.runtime.execute.executor import execute

class Files:
    def __init__(self): self.data = bytearray(6)
    def read_into(self, file, start, view): raise AssertionError
    def write(self, file, start, data): raise AssertionError
    def copy(self, inputs, extent, file, start):
        self.data[start:start + extent.nbytes] = b"abcdef"[extent.start:extent.start + extent.nbytes]

files = Files()
step = Step(Copy((Extent(0, 3, 2), Extent(0, 0, 2)), 0, 1), (), (), 0, 0, 0, 4, 4)
plan = Plan("1", "cpu", "F32", 2, False, "report", (), (), (), (), (), 0, (step,), 0, 0, 4, 4)
outcome = execute(plan, files, files)
assert bytes(files.data) == b"\\0deab\\0", files.data
assert (outcome.bytes_read, outcome.bytes_written) == (4, 4)
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_copies_of_different_tensors_run_side_by_side() -> None:
    """Each waits for another one: alone none would ever be done."""
    meeting = threading.Barrier(2)

    class Meeting(MemoryOutputs):
        def copy(self, inputs: MemoryInputs, extent: Extent, file: int, start: int) -> None:
            meeting.wait(60)
            super().copy(inputs, extent, file, start)

    steps = tuple(Step(Copy((Extent(0, k, 1),), 0, k), (), (), k, 0, 0, 1, 1) for k in range(4))
    tensors = tuple(OutputTensor(str(k), "U8", (1,), 0, k, 1, ()) for k in range(4))
    plan = Plan("1", "cpu", "F32", 2, False, "report", (), (), (), (), tensors, 0, steps, 0, 0, 4, 4)
    outputs = Meeting([4])
    assert execute(plan, MemoryInputs([b"abcd"]), outputs).bytes_written == 4
    assert outputs.files == [b"abcd"]


class _Boom(Exception):
    pass


@pytest.mark.parametrize("lanes", [1, 2])
def test_the_first_failure_stops_all_lanes(lanes: int) -> None:
    draft = Draft(lanes=lanes)
    numel = 64 * CHUNK
    draft.add(numel, [draft.input(torch.zeros(numel))], [], stores=[draft.output(0, "F32", numel)])
    calls = []

    class Failing(MemoryInputs):
        def read_into(self, file: int, start: int, view: memoryview) -> None:
            calls.append(start)
            if len(calls) == 5:
                raise _Boom
            super().read_into(file, start, view)

    threads = torch.get_num_threads()
    with pytest.raises(_Boom):
        execute(draft.plan(), Failing(draft.inputs), MemoryOutputs(draft.outputs))
    assert len(calls) <= 5 + lanes
    assert torch.get_num_threads() == threads
    assert not [t for t in threading.enumerate() if t.name.startswith("mergec-lane")]


@pytest.mark.parametrize("lanes", [1, 2])
def test_cancelling_stops_the_run(lanes: int) -> None:
    draft = Draft(lanes=lanes)
    numel = 64 * CHUNK
    draft.add(numel, [draft.input(torch.zeros(numel))], [], stores=[draft.output(0, "F32", numel)])
    cancel = threading.Event()

    class Stopping(Seen):
        def moved(self, read: int, written: int) -> None:
            super().moved(read, written)
            cancel.set()

    seen = Stopping()
    with pytest.raises(Cancelled):
        execute(draft.plan(), MemoryInputs(draft.inputs), MemoryOutputs(draft.outputs), seen, cancel)
    assert 0 < seen.written < 4 * numel


def test_scalar_code_follows_ieee() -> None:
    inf, nan = math.inf, math.nan
    cases = [
        ("div", (1.0, 0.0), inf),
        ("div", (-1.0, 0.0), -inf),
        ("div", (1.0, -0.0), -inf),
        ("div", (0.0, 0.0), nan),
        ("div", (nan, 0.0), nan),
        ("acos", (1.5,), nan),
        ("sqrt", (-1.0,), nan),
        ("log", (0.0,), -inf),
        ("log", (-1.0,), nan),
        ("exp", (1e4,), inf),
        ("sin", (inf,), nan),
        ("pow", (0.0, -1.0), inf),
        ("pow", (-0.0, -3.0), -inf),
        ("pow", (-8.0, 1 / 3), nan),
        ("pow", (-10.0, 401.0), -inf),
        ("mul", (1e300, 1e300), inf),
        ("min", (nan, 1.0), nan),
        ("max", (1.0, nan), nan),
        ("sign", (-0.0,), 0.0),
        ("lt", (1.0, nan), 0.0),
        ("where", (1.0, 2.0, 3.0), 2.0),
        ("not", (0.0,), 1.0),
    ]
    for name, args, want in cases:
        got = SCALARS[name](*args)
        assert got == want or (math.isnan(got) and math.isnan(want)), (name, args, got)
