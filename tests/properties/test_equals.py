"""What decides between equals is the rule in docs/methods.md, never rounding or the order of the
models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from mergec.compiler.ops.sorting_network import comparators
from merging import merge

FLOAT64 = 'output(dtype="float64", compute="float64")\n'


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orders(labels: str) -> list[str]:
    return [", ".join(order) for order in itertools.permutations(labels)]


# --- knots ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(65, 63), (12, 40), (40, 12), (5, 5)])
@pytest.mark.parametrize("options", ["", ", density=0.4", ", normalize=false", ', density=0.6, rescale="l2"'])
def test_knots_of_a_model_without_a_task_vector_is_that_of_the_others(shape: tuple[int, ...], options: str) -> None:
    base, b = numbers(1, *shape), numbers(2, *shape)
    models = {"base": {"x": base}, "a": {"x": base}, "b": {"x": b}}
    alone = merge(f"{FLOAT64}* = knots(b{options})", models)["x"]
    for order in orders("ab"):
        made = merge(f"{FLOAT64}* = knots({order}{options})", models)["x"]
        np.testing.assert_allclose(made, alone, rtol=0, atol=1e-10)


def test_knots_of_task_vectors_in_directions_of_their_own_adds_them_up() -> None:
    """Of rank 3 each, in columns that have nothing to do with each other: nobody else votes on a
    coordinate."""
    left = torch.linalg.qr(numbers(3, 30, 9)).Q
    base = torch.zeros(30, 20, dtype=torch.float64)
    deltas = {m: left[:, 3 * i : 3 * i + 3] @ numbers(4 + i, 3, 20) for i, m in enumerate("abc")}
    models = {"base": {"x": base}} | {m: {"x": d} for m, d in deltas.items()}
    for order in orders("abc"):
        made = merge(f"{FLOAT64}* = knots({order})", models)["x"]
        np.testing.assert_allclose(made, sum(deltas.values()), rtol=0, atol=1e-10)


def test_knots_of_columns_that_only_one_model_changed() -> None:
    base, a, b = (numbers(i, 16, 10) for i in range(3))
    b[:, 4:] = base[:, 4:]
    made = merge(f"{FLOAT64}* = knots(a, b)", {"base": {"x": base}, "a": {"x": a}, "b": {"x": b}})["x"]
    np.testing.assert_allclose(made[:, 4:], a[:, 4:], rtol=0, atol=1e-10)


def test_knots_of_a_model_and_its_opposite_is_the_same_in_either_order() -> None:
    delta = numbers(2, 12, 12)
    models = {"base": {"x": 0 * delta}, "a": {"x": delta}, "b": {"x": -delta}}
    one, other = (merge(f"{FLOAT64}* = knots({order})", models)["x"] for order in orders("ab"))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)


# --- variances -----------------------------------------------------------------------------------


def test_sce_keeps_the_first_of_equal_variances() -> None:
    """The same values at every element, exact in float32, in other orders, shifted and mirrored."""
    random = np.random.default_rng(3)
    values = np.array([random.permutation([1.0, 3, 7]) for _ in range(60)])
    values = (values * random.choice([-1, 1], (60, 1)) + random.integers(-5, 6, (60, 1))) / 8
    models = {"base": {"x": torch.full((60,), 2.0)}}
    models |= {m: {"x": torch.tensor(values[:, i] + 2, dtype=torch.float32)} for i, m in enumerate("abc")}
    expected = np.zeros(60, bool)
    expected[:15] = (values[:15] != 0).any(axis=1)
    for order in orders("abc"):
        made = merge(f"* = sce({order}, select_topk=0.25)", models)["x"].numpy()
        assert not (made != 2)[15:].any(), order


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_which_elements_sce_keeps_does_not_depend_on_the_order_of_models(count: int) -> None:
    """Multisets of any numbers that come twice: the variances are equal whatever rounding does."""
    labels = "abcde"[:count]
    random = np.random.default_rng(count)
    values = random.standard_normal((50, count)).repeat(2, axis=0)
    values[1::2] = random.permuted(values[1::2], axis=1)
    models = {"base": {"x": torch.zeros(100)}}
    models |= {m: {"x": torch.tensor(values[:, i], dtype=torch.float32)} for i, m in enumerate(labels)}
    kept = [
        merge(f"* = where(sce({order}, select_topk=0.33) != base, 1, 0) + 0*a", models)["x"]
        for order in orders(labels)[:24:5]
    ]
    assert int(kept[0].sum()) == 33
    assert all(torch.equal(kept[0], other) for other in kept)


@pytest.mark.parametrize("count", range(9))
def test_the_sorting_network_sorts(count: int) -> None:
    """A network that sorts all lists of zeros and ones sorts everything (Knuth 5.3.4, theorem
    Z)."""
    for given in itertools.product((0, 1), repeat=count):
        items = list(given)
        for i, j in comparators(count):
            items[i], items[j] = min(items[i], items[j]), max(items[i], items[j])
        assert items == sorted(given)


def test_sorted_in_a_recipe() -> None:
    models = {m: {"x": numbers(i, 4, 6).float()} for i, m in enumerate("abcde")}
    ascending = torch.stack([m["x"] for m in models.values()]).sort(dim=0).values
    for k in range(5):
        made = merge(f"let numbers = sorted([3, -1, 2])\n* = numbers[0] * sorted(a, b, c, d, e)[{k}]", models)["x"]
        assert torch.equal(made, -ascending[k])


# --- ranks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties"])
def test_breadcrumbs_by_row_and_by_tensor_are_one_for_a_vector(method: str) -> None:
    """Few magnitudes, so that most are equal to others."""
    random = torch.Generator().manual_seed(5)
    models = {m: {"x": torch.randint(-2, 3, (40,), generator=random).float()} for m in ("base", "a", "b")}
    for density, gamma in ((0.5, 0.125), (0.3, 0), (0.9, 0.5), (0.1, 0.8)):
        calls = (f"* = {method}(a, b, density={density}, gamma={gamma}, axis={axis})" for axis in ("none", "-1"))
        whole, row = (merge(call, models)["x"] for call in calls)
        assert torch.equal(whole, row)


@pytest.mark.parametrize("density", [0.5, 0.25])
def test_breadcrumbs_drops_the_first_of_equal_magnitudes_as_the_largest(density: float) -> None:
    models = {"base": {"x": torch.zeros(2, 16)}, "a": {"x": torch.tensor([1.0, -1.0]).repeat(2, 8)}}
    made = merge(f"* = breadcrumbs(a, density={density}, gamma=0.125, axis=-1)", models)["x"]
    kept = int(16 * density)
    assert (made != 0).int().tolist() == [[0] * 2 + [1] * kept + [0] * (14 - kept)] * 2


# --- directions that nobody has ------------------------------------------------------------------


def test_tsv_merge_of_a_model_without_a_task_vector_is_what_the_other_keeps() -> None:
    base, b = numbers(1, 24, 30), numbers(2, 24, 30)
    models = {"base": {"x": base}, "a": {"x": base}, "b": {"x": b}}
    u, s, vh = np.linalg.svd((b - base).numpy(), full_matrices=False)
    kept = base.numpy() + (u[:, :12] * s[:12]) @ vh[:12]
    for order in orders("ab"):
        made = merge(f"{FLOAT64}* = tsv_merge({order})", models)["x"]
        np.testing.assert_allclose(made, kept, rtol=0, atol=1e-10)


def test_tsv_merge_of_low_ranks_is_of_their_own_directions_alone() -> None:
    """Of rank 4 each, at right angles: nothing but rounding is in the 8 triplets more that either
    could keep."""
    left, right = (torch.linalg.qr(numbers(3 + i, 24 + 6 * i, 8)).Q for i in range(2))
    deltas = [left[:, p] @ numbers(7, 4, 4) @ right[:, p].T for p in (slice(0, 4), slice(4, 8))]
    models = {"base": {"x": torch.zeros(24, 30, dtype=torch.float64)}, "a": {"x": deltas[0]}, "b": {"x": deltas[1]}}
    for order in orders("ab"):
        made = merge(f"{FLOAT64}* = tsv_merge({order})", models)["x"]
        np.testing.assert_allclose(made, deltas[0] + deltas[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("factor", [-3, -0.3, -0.1])
@pytest.mark.parametrize("options", ["", ", base=base"])
def test_multislerp_of_opposite_tensors_makes_no_direction_of_their_rounding(factor: float, options: str) -> None:
    a = numbers(5, 30, 40).float()
    models = {"base": {"x": torch.zeros_like(a)}, "a": {"x": a}, "b": {"x": a * factor}}
    for order in orders("ab"):
        made = merge(f"* = multislerp({order}{options})", models)["x"]
        np.testing.assert_allclose(made, (a + a * factor) / 2, rtol=0, atol=1e-6)
