"""The compiled kernels against the portable ones, instruction by instruction and method by method:
the same bytes, but for the last bits of functions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from compiled import skip_without_a_compiler
from draft_plans import Draft
from hypothesis import given
from hypothesis import strategies as st
from mergec.compiler.ops.table import OPS
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.compiler.plan.plan import CHUNK, Constant, Instruction, Mask, Pass, Reduction, Register, Scalar
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from mergec.runtime.execute import engine
from mergec.runtime.native import backend
from mergec.runtime.native.select import REDUCTIONS
from mergec.runtime.session.session import run_plan
from mergec.runtime.stream import batching, passes
from mergec.runtime.stream.passes import SAMPLE, SAMPLED
from profiles import examples
from safetensors.torch import load, save_file


@pytest.fixture(autouse=True, scope="module")
def _built() -> None:
    skip_without_a_compiler()


N = CHUNK + 1037
"""More than a chunk, and no multiple of a piece, a vector or a lane."""

EDGES = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1.0, -1.0, 1e-45, 3e38, 1e-40, 65504.0, 65520.0, 6e-8]


def numbers(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.randn(N, generator=torch.Generator().manual_seed(seed))
    x[: len(EDGES) ** 2] = torch.cartesian_prod(torch.tensor(EDGES), torch.tensor(EDGES))[:, seed % 2]
    return x.to(dtype)


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which sides ran passes; `portable()` makes the next run do without compiled kernels."""
    ran: list[str] = []
    whole = engine.run_pass

    def told(context: object, pass_: Pass, *args: object) -> None:
        ran.append(type(args[-1]).__name__)
        whole(context, pass_, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "run_pass", told)
    monkeypatch.setattr(batching, "SMALL", 0)  # small tensors go another way: test_small.py
    return ran


def both(draft: Draft, sides: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], list[bytes]]:
    _, compiled = draft.run()
    assert set(sides) == {"Native"}
    monkeypatch.setattr(backend, "kernels", lambda: None)
    sides.clear()
    _, portable = draft.run()
    assert set(sides) == {"Portable"}
    return compiled, portable


def same(first: bytes, second: bytes) -> bool:
    """Equal but for what is inside a NaN, which no standard settles."""
    a, b = (np.frombuffer(x, np.float32) for x in (first, second))
    return bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))))


FUNCTIONS = {"exp", "log", "sin", "cos", "tanh", "acos", "pow"}
"""Each backend has its own, so last bits differ; test_functions.py says how much."""


def near(first: bytes, second: bytes) -> bool:
    """To some units in the last place, or of a number of 1."""
    a, b = (np.frombuffer(x, np.float32) for x in (first, second))
    return bool(np.allclose(a, b, rtol=2**-21, atol=2**-22, equal_nan=True))


def same_but_for_zeros(first: bytes, second: bytes) -> bool:
    """Of zeros with and without a sign, `min` and `max` may give either."""
    a, b = (np.frombuffer(x, np.float32) for x in (first, second))
    return bool(np.array_equal(a, b, equal_nan=True))


EXPRESSIONS = [row for row in OPS.values() if row.kind == "elementwise" and row.c]
FORMS = [
    *((row.name, form) for row in EXPRESSIONS if row.takes == "vv" for form in ("vv", "vn", "nv")),
    *((row.name, row.takes) for row in EXPRESSIONS if row.takes != "vv"),
    *(("where", form) for form in ("mvv", "mvn", "mnv", "mnn", "nvv", "nvn", "nnv")),
    *(("pow", form) for form in ("2", "h", "vv", "vn", "nv")),
    ("bernoulli", "n"),
    ("bernoulli", "v"),
]


@pytest.mark.parametrize("number", [0.3, -0.0])
@pytest.mark.parametrize(("op", "form"), FORMS)
def test_an_instruction(op: str, form: str, number: float, sides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft("F32", block=CHUNK)
    x, y = (draft.input(numbers(i)) for i in range(2))
    vectors, masks = iter((Register(0), Register(1))), iter((Mask(0), Mask(1)))
    letters = "vn" if form in ("2", "h") else form
    args = [next(vectors) if k == "v" else next(masks) if k == "m" else Constant(number) for k in letters]
    if form in ("2", "h"):
        args[1] = Constant(2.0 if form == "2" else 0.5)
    attributes = (("key", 0x123456789ABCDEF0),) if op == "bernoulli" else ()
    mask = OPS[op].result == "mask"
    out = 0 if OPS[op].in_place else 2
    code = [
        Instruction("load", Register(0), (), (("operand", 0),)),
        Instruction("load", Register(1), (), (("operand", 1),)),
        Instruction("gt", Mask(0), (Register(0), Register(1))),
        Instruction("lt", Mask(1), (Register(0), Constant(0.1))),
        Instruction(op, Mask(out) if mask else Register(out), tuple(args), attributes),
        *([Instruction("number", Register(out), (Mask(out),))] if mask else []),
    ]
    draft.add(N, [x, y], code, stores=[draft.output(out, "F32", N)])
    (compiled,), (portable,) = both(draft, sides, monkeypatch)
    function = op in FUNCTIONS and form not in ("2", "h")
    agree = near if function else same_but_for_zeros if op in ("min", "max") else same
    assert agree(compiled, portable)


@pytest.mark.parametrize("power", [2.0, 0.5, 2.0 + 1e-12, 3.0])
def test_a_power_known_only_when_it_is_run(power: float, sides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares and roots are taken by instructions of their own, whether the recipe says so or a
    tensor."""
    draft = Draft("F32", block=CHUNK)
    x = draft.input(numbers(0))
    load = Instruction("load", Register(0), (), (("operand", 0),))
    maximum = Instruction("min", Register(0), (Constant(power), Constant(power)))
    draft.add(N, [x], [load, maximum], reductions=[Reduction("maximum", Scalar(0), (Register(0),))])
    code = [load, Instruction("pow", Register(0), (Register(0), Scalar(0)))]
    draft.add(N, [x], code, stores=[draft.output(0, "F32", N)])
    (compiled,), (portable,) = both(draft, sides, monkeypatch)
    assert (near if power == 3.0 else same)(compiled, portable)


@pytest.mark.parametrize("to", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_numbers_come_and_go(dtype: torch.dtype, to: str, sides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft("F32", block=CHUNK)
    code = [Instruction("load", Register(0), (), (("operand", 0),)), Instruction("neg", Register(0), (Register(0),))]
    draft.add(N, [draft.input(numbers(0, dtype))], code, stores=[draft.output(0, to, N)])
    (compiled,), (portable,) = both(draft, sides, monkeypatch)
    kind = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}[to]
    a, b = (torch.frombuffer(bytearray(x), dtype=kind) for x in (compiled, portable))
    assert torch.equal(torch.nan_to_num(a, nan=12345.0), torch.nan_to_num(b, nan=12345.0))
    assert torch.equal(torch.signbit(a) & ~a.isnan(), torch.signbit(b) & ~b.isnan())


def test_every_pattern_of_a_half_comes_and_goes(sides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    draft = Draft("F32", block=CHUNK)
    load = Instruction("load", Register(0), (), (("operand", 0),))
    third = Instruction("mul", Register(0), (Register(0), Constant(1 / 3)))
    stores = [draft.output(0, "F16", CHUNK)]
    draft.add(CHUNK, [draft.input(every)], [load, third], stores=stores)
    (compiled,), (portable,) = both(draft, sides, monkeypatch)
    a, b = (torch.frombuffer(bytearray(x), dtype=torch.float16) for x in (compiled, portable))
    assert torch.equal(torch.nan_to_num(a, nan=1.5), torch.nan_to_num(b, nan=1.5))


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize("op", sorted(set(REDUCTIONS) - {"digits", "threshold_at"}))
def test_a_reduction(op: str, finite: bool, sides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen through what is made of it: the number itself, or what a threshold keeps."""
    x, y = (numbers(i).nan_to_num(0.1, 0.2, 0.3) if finite else numbers(i) for i in range(2))
    draft = Draft("F32", block=CHUNK)
    a, b = draft.input(x), draft.input(y)
    load = [Instruction("load", Register(i), (), (("operand", i),)) for i in range(2)]
    compare = Instruction("gt", Mask(0), (Register(0), Register(1)))
    args = {"dot": (Register(0), Register(1)), "count": (Mask(0),)}.get(op, (Register(0),))
    attributes = (("k", N // 3),) if op in ("threshold", "kth_smallest") else ()
    reduction = Reduction(op, Scalar(0), args, attributes)
    draft.add(N, [a, b], [*load, compare], reductions=[reduction])
    if op == "threshold":
        code = [load[0], Instruction("above", Mask(0), (Register(0), Scalar(0)))]
        code.append(Instruction("number", Register(0), (Mask(0),)))
    else:
        code = [load[0], Instruction("mul", Register(0), (Register(0), Scalar(0)))]
    draft.add(N, [a], code, stores=[draft.output(0, "F32", N)])
    (compiled,), (portable,) = both(draft, sides, monkeypatch)
    assert same(compiled, portable)


@examples(25)
@given(
    levels=st.sampled_from([1, 3, 40, 5000, 1 << 23]),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
    numel=st.integers(1, 3 * CHUNK),
    sampled=st.booleans(),
    drift=st.sampled_from([1.0, 1.001, 3.0, 1e6]),
)
def test_exactly_the_largest_are_kept(
    levels: int, share: float, seed: int, numel: int, sampled: bool, drift: float
) -> None:
    """With few levels nearly all are ties; those of lowest index win. Where numbers drift along the
    tensor, a sample of parts tells little of all, and its windows may miss."""
    rng = np.random.default_rng(seed)
    x = (rng.integers(-levels, levels + 1, numel) / levels * np.linspace(1, drift, numel)).astype(np.float32)
    k = round(share * numel)
    draft = Draft("F32", block=CHUNK)
    a = draft.input(torch.from_numpy(x))
    load = Instruction("load", Register(0), (), (("operand", 0),))
    draft.add(numel, [a], [load], reductions=[Reduction("threshold", Scalar(0), (Register(0),), (("k", k),))])
    code = [load, Instruction("above", Mask(0), (Register(0), Scalar(0)))]
    code.append(Instruction("number", Register(0), (Mask(0),)))
    draft.add(numel, [a], code, stores=[draft.output(0, "F32", numel)])
    with pytest.MonkeyPatch.context() as patch:
        if sampled:
            patch.setattr(passes, "WORTH_A_GUESS", 0)
            patch.setattr(passes, "SAMPLE", 512)
        _, (data,) = draft.run()
    want = np.zeros(numel, np.float32)
    want[np.argsort(-np.abs(x), kind="stable")[:k]] = 1
    assert np.array_equal(np.frombuffer(data, np.float32), want)


@pytest.mark.parametrize(
    ("levels", "odd", "rounds"),
    [(1, False, 1), (100, False, 1), (1 << 23, False, 1), (1, True, 3), (100, True, 3), (1 << 23, True, 3)],
)
@pytest.mark.parametrize("lanes", [1, 3])
def test_a_guess_spares_rounds_and_a_wrong_one_costs_only_itself(
    levels: int, odd: bool, rounds: int, lanes: int
) -> None:
    """Of sixteen parts one is looked at first. Where these are like the others, all is read once
    more to find the k-th; else the window misses it, and two rounds look for it without a guess.
    What is kept is the same. Numbers of few levels have ties, which are cut at the right one."""
    rng, blocks = np.random.default_rng(1), 16
    x = (rng.integers(-levels, levels + 1, 2 * CHUNK * blocks) / levels).astype(np.float32)
    if odd:
        for part in x.reshape(-1, SAMPLE)[SAMPLED // 2 :: SAMPLED]:
            part *= 1000
    k = x.size // 3 + 5
    draft = Draft("F32", lanes=lanes, block=2 * CHUNK)
    a = draft.input(torch.from_numpy(x))
    load = Instruction("load", Register(0), (), (("operand", 0),))
    draft.add(x.size, [a], [load], reductions=[Reduction("threshold", Scalar(0), (Register(0),), (("k", k),))])
    code = [load, Instruction("above", Mask(0), (Register(0), Scalar(0)))]
    code.append(Instruction("number", Register(0), (Mask(0),)))
    draft.add(x.size, [a], code, stores=[draft.output(0, "F32", x.size)])
    outcome, (data,) = draft.run()
    want = np.zeros(x.size, np.float32)
    want[np.argsort(-np.abs(x), kind="stable")[:k]] = 1
    assert np.array_equal(np.frombuffer(data, np.float32), want)
    counting = outcome.bytes_read / x.nbytes - 1
    assert counting == rounds + 1 / SAMPLED


@examples(25)
@given(
    levels=st.sampled_from([1, 3, 5000, 1 << 23]),
    ranks=st.lists(st.integers(0, 3 * CHUNK), min_size=1, max_size=3),
    lanes=st.integers(1, 3),
    seed=st.integers(0, 1000),
    numel=st.integers(1, 3 * CHUNK),
)
def test_numbers_at_places_in_order(levels: int, ranks: list[int], lanes: int, seed: int, numel: int) -> None:
    """Several of one tensor, which share their counts as long as they look for the same."""
    rng = np.random.default_rng(seed)
    x = (rng.integers(-levels, levels + 1, numel) / levels).astype(np.float32)
    x[rng.random(numel) < 0.01] = np.nan
    x[rng.random(numel) < 0.01] = -np.inf
    draft = Draft("F32", block=CHUNK, lanes=lanes)
    a = draft.input(torch.from_numpy(x))
    load = Instruction("load", Register(0), (), (("operand", 0),))
    ranks = [min(k, numel - 1) for k in ranks]
    reductions = [Reduction("kth_smallest", Scalar(i), (Register(0),), (("k", k),)) for i, k in enumerate(ranks)]
    draft.add(numel, [a], [load], reductions=reductions)
    stores = []
    code = [load]
    for i in range(len(ranks)):
        code.append(Instruction("fill", Register(i + 1), (Scalar(i),)))
        stores.append(draft.output(i + 1, "F32", numel))
    draft.add(numel, [a], code, stores=stores)
    _, made = draft.run()
    order = np.sort(x)
    for k, data in zip(ranks, made, strict=True):
        assert np.array_equal(np.frombuffer(data, np.float32), np.full(numel, order[k]), equal_nan=True)


# rows longer than a chunk find no room to be sorted in
LONG = [("row_sum", 1 << 17), ("row_max", 100_000)]
ROWS = [1, 2, 63, 64, 100, 1000, 1024, 4097, 30000]


@pytest.mark.parametrize(("op", "row"), [*((op, n) for op in ("row_sum", "row_max", "row_rank") for n in ROWS), *LONG])
def test_along_rows(op: str, row: int, sides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = max(2, 2000 // row)
    x = torch.randn(rows * row, generator=torch.Generator().manual_seed(row))
    x[: row // 3] = x[0]  # equal ones
    x[-1] = -0.0
    x[-2:-1] = 0.0
    if op == "row_max":
        x[:row] = torch.tensor([-0.0, 0.0]).repeat(row)[:row]
        x[row : row + 1] = math.nan
    draft = Draft("F32", block=rows * row)
    code = [
        Instruction("load", Register(0), (), (("operand", 0),)),
        Instruction(op, Register(1), (Register(0),), (("row", row),)),
    ]
    draft.add(rows * row, [draft.input(x)], code, stores=[draft.output(1, "F32", rows * row)])
    (compiled,), (portable,) = both(draft, sides, monkeypatch)
    assert same(compiled, portable)


@pytest.mark.parametrize("row", [5, 16, 100, 257])
def test_the_largest_of_zeros_is_the_same(row: int, sides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros of both signs are equal, so that which of them is found would depend on the order of
    comparisons."""
    rng = np.random.default_rng(row)
    zeros = rng.choice(np.array([0.0, -0.0, -1.0], np.float32), 64 * row)
    draft = Draft("F32", block=64 * row)
    a = draft.input(torch.from_numpy(zeros))
    load = Instruction("load", Register(0), (), (("operand", 0),))
    reductions = [Reduction("maximum", Scalar(0), (Register(0),)), Reduction("minimum", Scalar(1), (Register(1),))]
    draft.add(64 * row, [a], [load, Instruction("neg", Register(1), (Register(0),))], reductions=reductions)
    code = [
        load,
        Instruction("row_max", Register(1), (Register(0),), (("row", row),)),
        Instruction("mul", Register(0), (Register(0), Scalar(0))),
        Instruction("mul", Register(0), (Register(0), Scalar(1))),
    ]
    draft.add(64 * row, [a], code, stores=[draft.output(1, "F32", 64 * row), draft.output(0, "F32", 64 * row)])
    compiled, portable = both(draft, sides, monkeypatch)
    assert all(same(a, b) for a, b in zip(compiled, portable, strict=True))


RECIPES = [
    "linear(a, b, weight=[0.6, 0.3])",
    "slerp(a, b, t=0.3)",
    "nuslerp(a, b, weight=[0.4, 0.6])",
    "karcher(a, b)",
    "task_arithmetic(a, b, base=base, weight=0.7)",
    "ties(a, b, base=base, density=0.3)",
    "dare_ties(a, b, base=base, density=0.4)",
    'dare_linear(a, b, base=base, density=0.4, rescale="l1")',
    "della(a, b, base=base, density=0.5, epsilon=0.2)",
    "breadcrumbs(a, b, base=base, density=0.6, gamma=0.02)",
    "breadcrumbs_ties(a, b, base=base, density=0.6, gamma=0.02)",
    "sce(a, b, base=base, select_topk=0.3)",
    "model_stock(a, b, base=base)",
    "nearswap(a, b, t=0.01)",
    "arcee_fusion(a, b)",
    "pcb(a, b, base=base)",
]
OF_FUNCTIONS = {"arcee_fusion", "pcb", "nuslerp"}
"""Methods that take functions of elements, or of rows: last bits are each backend's own."""


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_method(
    recipe: str, dtype: torch.dtype, tmp_path: Path, sides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole merges: the same files, but for functions; and with compiled kernels nothing of torch
    was asked for."""
    for seed, name in enumerate(("base", "a", "b")):
        generator = torch.Generator().manual_seed(seed)
        shapes = {"x": (300, 257), "y": (7,), "z": (2, 64, 100)}
        tensors = {k: torch.randn(s, generator=generator).to(dtype) for k, s in shapes.items()}
        save_file(tensors, tmp_path / f"{name}.safetensors")
    lets = "\n".join(f'let {name} = model("{tmp_path / name}.safetensors")' for name in ("base", "a", "b"))
    plan = compile_recipe(Source("<recipe>", f"{lets}\n* = {recipe}\n"), LocalCatalog(), "0", Options(block=CHUNK)).plan
    made = []
    for name in ("compiled", "portable"):
        if name == "portable":
            monkeypatch.setattr(backend, "kernels", lambda: None)
        sides.clear()
        run_plan(plan, tmp_path / name)
        assert set(sides) == {"Native" if name == "compiled" else "Portable"}
        made.append((tmp_path / name / "model.safetensors").read_bytes())
    if recipe.partition("(")[0] not in OF_FUNCTIONS:
        assert made[0] == made[1]
        return
    # a mask that follows from such numbers may take another element, where two rank nearly alike
    one, two = (load(data) for data in made)
    apart = [(one[k].float() - two[k].float()).abs() > 2**-7 * one[k].float().abs() for k in one]
    assert sum(int(a.sum()) for a in apart) <= 20
