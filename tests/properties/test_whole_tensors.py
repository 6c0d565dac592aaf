"""Methods on whole tensors against `reference_svd.py`, and what must hold of them whatever the
decomposition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import reference_svd as naive
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from mergec.compiler.pipeline import Options
from merging import merge
from profiles import examples
from reference import Array

Shape = tuple[int, ...]
LABELS = ("a", "b", "c", "d")
MATRICES: list[Shape] = [(12, 7), (7, 12), (9, 9), (1, 5), (5, 1), (40, 30), (2, 2), (1, 1)]
OTHERS: list[Shape] = [(), (7,), (0,), (3, 4, 5), (2, 3, 3, 3), (0, 4), (4, 0), (2, 3, 1, 1)]

few = examples(40, *HealthCheck)


def models(
    shapes: Sequence[Shape], count: int, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, dict[str, torch.Tensor]]:
    """A base and models a tenth of its size away."""
    random = torch.Generator().manual_seed(seed)
    names = {f"x{i}": shape for i, shape in enumerate(shapes)}
    out = {"base": {n: torch.randn(s, generator=random).to(dtype) for n, s in names.items()}}
    for label in LABELS[:count]:
        out[label] = {n: (x + 0.1 * torch.randn(x.shape, generator=random)).to(dtype) for n, x in out["base"].items()}
    return out


def wide(x: torch.Tensor) -> Array:
    return x.to(torch.float64).numpy()


def deltas_of(inputs: dict[str, dict[str, torch.Tensor]], name: str) -> list[Array]:
    """As float32 has them."""
    base = inputs["base"][name].float()
    return [wide(inputs[label][name].float() - base) for label in LABELS if label in inputs]


def near(made: Array, wanted: Array, size: float, rtol: float) -> None:
    assert made.shape == wanted.shape
    assert np.isfinite(made).all()
    assert np.linalg.norm(made - wanted) <= rtol * size, f"{made} is not {wanted}"


Method = Callable[[list[Array]], Array]
METHODS: dict[str, Method] = {
    "tsv_merge(*ms)": naive.tsv_merge,
    "iso_c(*ms)": naive.iso_c,
    "iso_cts(*ms)": lambda d: naive.iso_cts(d, 0.8),
    "iso_cts(*ms, common=0.3)": lambda d: naive.iso_cts(d, 0.3),
    "star(*ms)": lambda d: naive.star(d, 40),
    "star(*ms, eta=75)": lambda d: naive.star(d, 75),
    "knots(*ms, inner=sum)": lambda d: np.asarray(sum(d)),
    "knots(*ms, density=0.4, weight=0.5)": lambda d: naive.knots(d, lambda p: naive.ties(p, [0.5] * len(p), 0.4)),
    'wudi(*ms, solver="closed")': naive.wudi_closed,
    "wudi(*ms, iters=20, lr=1e-3)": lambda d: naive.wudi_adam(d, 20, 1e-3),
}


def run(
    method: str, inputs: dict[str, dict[str, torch.Tensor]], head: str = "", options: Options | None = None
) -> dict[str, torch.Tensor]:
    listed = ", ".join(label for label in LABELS if label in inputs)
    return merge(f"{head}\n* = {method.replace('*ms', listed)}", inputs, options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_matrices(method: str, count: int) -> None:
    """In float32; in float64 the same to many more digits."""
    inputs = models(MATRICES, count)
    for head, rtol in (("", 2e-4), ('output(compute="float64", dtype="float64")', 1e-9)):
        made = run(method, inputs, head)
        for name in made:
            base = wide(inputs["base"][name])
            deltas = [wide(inputs[label][name]) - base for label in LABELS[:count]]
            near(wide(made[name]) - base, METHODS[method](deltas), float(np.linalg.norm(base)), rtol)


@pytest.mark.parametrize("method", METHODS)
def test_all_else_takes_the_mean(method: str) -> None:
    inputs = models(OTHERS, 3)
    made = run(method, inputs)
    for name in made:
        base = wide(inputs["base"][name])
        near(wide(made[name]), base + sum(deltas_of(inputs, name)) / 3, float(np.linalg.norm(base)), 1e-6)


@few
@given(
    st.tuples(st.integers(0, 8), st.integers(0, 8)),
    st.sampled_from(sorted(METHODS)),
    st.integers(1, 4),
    st.integers(0, 99),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_any_matrix(shape: Shape, method: str, count: int, seed: int, dtype: torch.dtype) -> None:
    inputs = models([shape], count, seed, dtype)
    made = run(method, inputs, 'output(compute="float64", dtype="float64")')
    base = wide(inputs["base"]["x0"])
    deltas = [wide(inputs[label]["x0"]) - base for label in LABELS[:count]]
    wanted = METHODS[method](deltas) if base.size else np.zeros(shape)
    near(wide(made["x0"]) - base, wanted, float(np.linalg.norm(base)), 1e-6)


def test_what_is_excluded() -> None:
    names = {"model.embed_tokens.weight": (6, 4), "lm_head.weight": (6, 4), "model.layers.0.mlp.up_proj.weight": (8, 4)}
    random = torch.Generator().manual_seed(1)
    inputs = {label: {n: torch.randn(s, generator=random) for n, s in names.items()} for label in ("base", "a", "b")}
    means = {n: inputs["base"][n] + (inputs["a"][n] + inputs["b"][n] - 2 * inputs["base"][n]) / 2 for n in names}
    for exclude, excluded in (
        ("", {"model.embed_tokens.weight", "lm_head.weight"}),
        (", exclude=false", set()),
        (", exclude={head: true, _: false}", {"lm_head.weight"}),
        (", exclude=has_vocabulary() or layer == 0", set(names) - {"lm_head.weight"} | {"lm_head.weight"}),
    ):
        made = merge(f"* = iso_c(a, b{exclude})", inputs)
        assert {n for n in names if torch.allclose(made[n], means[n], atol=1e-5)} == excluded


# --- invariants ----------------------------------------------------------------------------------


def nuclear(x: Array) -> float:
    return float(np.linalg.svd(x, compute_uv=False).sum())


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_models_does_not_matter(method: str) -> None:
    inputs = models([(12, 7), (6, 10)], 3)
    swapped = {"base": inputs["base"], "a": inputs["c"], "b": inputs["a"], "c": inputs["b"]}
    first, second = run(method, inputs), run(method, swapped)
    for name in first:
        near(wide(first[name]), wide(second[name]), float(first[name].norm()), 1e-5)


def test_nuclear_norms_are_kept() -> None:
    inputs = models([(12, 7), (6, 10)], 2)
    for name in ("x0", "x1"):
        base, deltas = wide(inputs["base"][name]), deltas_of(inputs, name)
        assert nuclear(wide(run("iso_c(*ms)", inputs)[name]) - base) == pytest.approx(
            nuclear(np.asarray(sum(deltas))), rel=1e-5
        )
        for eta in (1, 40, 100):
            made = run(f"star(a, eta={eta})", inputs)
            assert nuclear(wide(made[name]) - base) == pytest.approx(nuclear(deltas[0]), rel=1e-5)


@pytest.mark.parametrize(
    "method",
    ["tsv_merge(a)", "star(a, eta=100)", "knots(a)", "wudi(a)", 'wudi(a, solver="closed")', "knots(a, inner=sum)"],
)
def test_one_model_is_itself(method: str) -> None:
    inputs = models([(12, 7), (6, 10)], 1)
    made = run(method, inputs)
    assert all(torch.allclose(made[n], inputs["a"][n], atol=1e-5) for n in made)


def test_the_closed_form_has_no_gradient() -> None:
    inputs = models([(12, 7), (6, 10), (3, 20)], 3)
    made = run('wudi(*ms, solver="closed")', inputs, 'output(dtype="float64", compute="float64")')
    for name in made:
        base = wide(inputs["base"][name])
        deltas = [wide(inputs[label][name]) - base for label in "abc"]
        assert np.abs(naive.interference_gradient(wide(made[name]) - base, deltas)).max() < 1e-10


def test_any_function_may_be_the_inner_one() -> None:
    inputs = models([(8, 5)], 2)
    made = run("knots(*ms, inner=halves)", inputs, "def halves(xs) = sum(xs) / 2")
    assert torch.allclose(made["x0"], (inputs["a"]["x0"] + inputs["b"]["x0"]) / 2, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_task_vectors_of_zero(method: str) -> None:
    inputs = models([(6, 5), (3, 8)], 1)
    same = {"base": inputs["base"], "a": inputs["base"], "b": inputs["base"]}
    made = run(method, same)
    assert all(torch.allclose(made[n], inputs["base"][n], atol=1e-6) for n in made)
    mixed = {"base": inputs["base"], "a": inputs["a"], "b": inputs["base"]}
    assert all(bool(x.isfinite().all()) for x in run(method, mixed).values())


@pytest.mark.parametrize("method", METHODS)
def test_identical_tasks(method: str) -> None:
    """U and V lack rank; the result is finite, and no larger than the sum of the tasks."""
    inputs = models([(12, 6), (6, 12), (7, 7)], 1)
    made = run(method, inputs | {"b": inputs["a"], "c": inputs["a"]})
    for name in made:
        (delta,) = deltas_of(inputs, name)
        assert nuclear(wide(made[name]) - wide(inputs["base"][name])) <= 3.001 * nuclear(delta)


def test_a_shared_basis_of_less_than_full_rank() -> None:
    """A density counts elements of the directions that there are."""
    random = np.random.default_rng(3)
    base = np.zeros((10, 8))
    factors = [random.standard_normal((10, 2)) @ random.standard_normal((2, 8)) for _ in range(2)]
    inputs = {label: {"x": torch.tensor(x)} for label, x in zip(("base", "a", "b"), (base, *factors), strict=True)}
    made = merge('output(compute="float64")\n* = knots(a, b, density=0.5)', inputs)
    near(wide(made["x"]), naive.knots(factors, lambda p: naive.ties(p, [1, 1], 0.5)), 10, 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_spoils_its_tensor_alone(method: str) -> None:
    inputs = models([(6, 5), (6, 5), (7,)], 2)
    for bad in (torch.inf, torch.nan):
        inputs["b"]["x0"][2, 3] = bad
        made = run(method, inputs)
        assert made["x0"].isnan().all()
        assert made["x1"].isfinite().all()


@pytest.mark.parametrize("method", [*METHODS, "rotate(a, b, alignment=0.5)", "crossover(a, b, tilt=0.3)"])
def test_the_same_bytes_whatever_lanes_and_budget(method: str) -> None:
    inputs = models([(70, 50), (33, 65), (5,)], 2)
    first = run(method, inputs, options=Options(lanes=1))
    for options in (Options(lanes=3, host_memory=1 << 25),):
        second = run(method, inputs, options=options)
        assert all(torch.equal(first[n], second[n]) for n in first)


# --- two tensors ---------------------------------------------------------------------------------

tensors = st.one_of(
    st.lists(st.integers(1, 5), max_size=4).map(tuple), st.sampled_from([(0,), (3, 0), (1, 1), (30, 17)])
)
shares = st.sampled_from([0.0, 1.0, 0.5, 0.3, 0.85])


@few
@given(st.integers(0, 9), st.integers(0, 99))
def test_truncate_rank(rank: int, seed: int) -> None:
    inputs = models([(8, 5), (3, 7), (4,), (2, 2, 2)], 1, seed)
    made = merge(f"* = truncate_rank(a, rank={rank})", inputs)
    for name, x in inputs["a"].items():
        wanted = naive.truncate_rank(wide(x), rank) if x.ndim == 2 else wide(x)
        near(wide(made[name]), wanted, float(x.norm()), 1e-5)


@few
@given(tensors, shares, shares, st.integers(0, 99))
def test_crossover(shape: Shape, alpha: float, tilt: float, seed: int) -> None:
    inputs = models([shape], 2, seed)
    a, b = wide(inputs["a"]["x0"]), wide(inputs["b"]["x0"])
    made = merge(f"* = crossover(a, b, alpha={alpha}, tilt={tilt})", inputs)
    wanted = naive.crossover(a, b, alpha, tilt) if a.size else a
    near(wide(made["x0"]), wanted, float(np.linalg.norm(a) + np.linalg.norm(b)), 1e-6)


@few
@given(
    st.sampled_from([(9, 4), (30, 7), (5, 1), (3, 6, 5), (6, 5, 2, 3), (12, 3, 1, 1)]),
    st.sampled_from([0.0, 1.0, 0.5, 2.0, -0.25]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 99),
)
def test_rotate(shape: Shape, alignment: float, alpha: float, seed: int) -> None:
    inputs = models([shape, (5,), ()], 2, seed)
    made = merge(f"* = rotate(a, b, alignment={alignment}, alpha={alpha})", inputs)
    a, b = (wide(inputs[label]["x0"]) for label in "ab")
    near(wide(made["x0"]), naive.rotate(a, b, alignment, alpha), float(np.linalg.norm(a)), 1e-4)
    for name in ("x1", "x2"):
        assert torch.allclose(made[name], torch.lerp(inputs["a"][name], inputs["b"][name], alpha), atol=1e-6)


def test_rotating_finds_a_rotation() -> None:
    """Where b is a turned, a turned towards b is b, however few its rows."""
    for rows, columns in ((20, 6), (4, 9)):
        a = torch.randn(rows, columns, generator=torch.Generator().manual_seed(2))
        turn = torch.linalg.qr(torch.randn(columns, columns, generator=torch.Generator().manual_seed(3)))[0]
        b = a @ turn + 1
        made = merge("* = rotate(a, b)", {"a": {"x": a}, "b": {"x": b}})
        assert torch.allclose(made["x"], b, atol=1e-4)
