"""Methods that look along rows and columns against `reference_rows.py`, their edge cases and
mistakes."""

from __future__ import annotations

import math

import mergec
import numpy as np
import pytest
import reference
import reference_rows as naive
import torch
from drawn import LABELS, Inputs, agree, inputs, names_in, numbers, text, wide
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from mergec.compiler.pipeline import Options
from merging import Tensors, merge
from profiles import examples

few = examples(20, *HealthCheck)
NAMES = ("x", "y.weight", "z")
windows = st.one_of(
    st.sampled_from([(1.0, 0.15), (0.0, 0.15), (0.5, 0.0), (0.5, 0.15)]),
    st.tuples(st.floats(0.1, 0.9), st.floats(0, 0.95)).map(
        lambda w: (round(w[0], 3), round(w[1] * min(w[0], 1 - w[0]), 3))
    ),
)
alphas = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-1.2, 1.2).map(lambda x: round(x, 3)))


def models(given: Inputs, labels: tuple[str, ...]) -> dict[str, Tensors]:
    return {"base": given.tensors(-1)} | {label: given.tensors(LABELS.index(label)) for label in labels}


# --- against the reference -----------------------------------------------------------------------


@few
@given(
    inputs(NAMES),
    st.lists(st.tuples(numbers, windows), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([None, "inv_prob", "inv_density", "l1", "l2"]),
    st.booleans(),
)
def test_della(
    given: Inputs,
    options: list[tuple[float, tuple[float, float]]],
    normalize: bool,
    rescale: str | None,
    linear: bool,
) -> None:
    weights, (densities, epsilons) = [w for w, _ in options], map(list, zip(*(p for _, p in options), strict=True))
    if linear and normalize and 1e-8 < abs(sum(weights)) < 0.05:
        weights = [abs(w) + 0.1 for w in weights]
    labels = names_in(weights)
    mode = "none" if rescale is None else f'"{rescale}"'
    recipe = (
        f"* = {'della_linear' if linear else 'della'}({', '.join(labels)}, weight={text(weights)}, "
        f"density={text(densities)}, epsilon={text(epsilons)}, normalize={str(normalize).lower()}, rescale={mode}, "
        "lambda=0.8)"
    )
    inputs_ = models(given, tuple(labels))
    made = merge(recipe, inputs_)
    arrays = {label: wide(tensors) for label, tensors in inputs_.items()}
    join = reference.combined if linear else reference.elected
    for name in given.shapes:
        base = arrays["base"][name]
        found = naive.della(
            [arrays[label][name] for label in labels],
            base,
            densities,
            epsilons,
            rescale,
            [reference.key_of(0, name, label) for label in labels],
            lambda left, base=base: join(base, left, weights, normalize, 0.8),
        )
        agree(made[name], found.value, found.size, found.sure)


@few
@given(inputs(NAMES), st.sampled_from("rsn"))
def test_arcee_fusion(given: Inputs, relation: str) -> None:
    """With another second model, the same, and one that differs in few elements."""
    a, b = given.tensors(0), given.tensors(1)
    if relation == "s":
        b = a
    elif relation == "n":
        b = {n: torch.where(torch.arange(x.numel()).view(x.shape) % 5 == 0, x, a[n]) for n, x in b.items()}
    made = merge("* = arcee_fusion(a, b)", {"a": a, "b": b})
    for name in given.shapes:
        found = naive.arcee_fusion(wide(a)[name], wide(b)[name])
        agree(made[name], found.value, found.size, found.sure)


@few
@given(inputs(NAMES), alphas, st.booleans())
def test_add_cosine(given: Inputs, alpha: float, whole: bool) -> None:
    a, b = given.tensors(0), given.tensors(1)
    made = merge(f"* = add_cosine_{'b' if whole else 'a'}(a, b, alpha={alpha})", {"a": a, "b": b})
    for name in given.shapes:
        agree(made[name], *naive.add_cosine(wide(a)[name], wide(b)[name], alpha, whole=whole))


@few
@given(inputs(NAMES), st.tuples(numbers, numbers), st.booleans())
def test_nuslerp_of_columns(given: Inputs, weights: tuple[float, float], based: bool) -> None:
    if 1e-6 <= abs(sum(weights)) < 0.05:
        weights = (1.0, 2.0)
    call = f"weight={text(list(weights))}, base={'base' if based else 'none'}, flatten=false, row_wise=true"
    inputs_ = models(given, ("a", "b"))
    made = merge(f"* = nuslerp(a, b, {call})", inputs_)
    for name in given.shapes:
        base, a, b = (wide(inputs_[label])[name] for label in ("base", "a", "b"))
        found = naive.nuslerp_of_columns(a, b, weights, base if based else None)
        agree(made[name], found.value, found.size, found.sure)


def test_nuslerp_of_nearly_opposite_columns() -> None:
    """An angle little below half a turn: factors of hundreds, and rounding the cosine moves them by
    a hundredth."""
    given = Inputs({"x": (2, 5, 5), "y.weight": (2,), "z": ()}, False, "bfloat16", 1)
    inputs_ = models(given, ("a", "b"))
    made = merge("* = nuslerp(a, b, weight=[0.0, 0.0], flatten=false, row_wise=true)", inputs_)
    a, b = (wide(inputs_[label])["y.weight"] for label in "ab")
    found = naive.nuslerp_of_columns(a, b, [0.0, 0.0], None)
    assert found.sure.all()
    assert abs(found.value).max() > 20
    agree(made["y.weight"], found.value, found.size, found.sure)


@few
@given(inputs(NAMES), st.floats(0, 1))
def test_quantile(given: Inputs, q: float) -> None:
    """Exact, so equal but for the output's rounding, which the numbers of one dtype don't need."""
    a = given.tensors(0)
    made = merge(f"* = 0*a + quantile(a, {q!r})", {"a": a})
    for name, x in a.items():
        if x.numel():
            assert made[name].double().unique().tolist() == [naive.quantile(wide(a)[name], q)]


# --- edges ---------------------------------------------------------------------------------------

SHAPES = {
    "scalar": (),
    "none": (0, 3),
    "one": (1,),
    "row": (7,),
    "column": (5, 1),
    "wide": (1, 5),
    "kernel": (2, 3, 2, 2),
}
BASED = (
    "della({0}, {0}, density=0.5)",
    'della_linear({0}, density=0.5, rescale="l1")',
    "nuslerp({0}, {0}, base=base, flatten=false, row_wise=true)",
)
UNBASED = (
    "arcee_fusion({0}, {0})",
    "add_cosine_a({0}, {0})",
    "add_cosine_b({0}, {0}, alpha=0)",
    "nuslerp({0}, {0}, flatten=false, row_wise=true)",
)
ALONE = ("della({0})", "della_linear({0})", 'della({0}, rescale="l1")')


def plain(seed: int) -> dict[str, torch.Tensor]:
    return Inputs(SHAPES, False, "float32", seed).tensors(seed)


@pytest.mark.parametrize("call", [*UNBASED, *ALONE, BASED[2]])
def test_a_model_with_itself_or_alone_is_that_model(call: str) -> None:
    inputs_ = {"base": plain(1), "a": plain(2)}
    made = merge("* = " + call.format("a"), inputs_)
    for name, x in inputs_["a"].items():
        torch.testing.assert_close(made[name], x, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("call", BASED)
@pytest.mark.parametrize("kind", ["the base itself", "a copy"])
def test_deltas_of_zero_leave_the_base(call: str, kind: str) -> None:
    base = plain(1)
    copy = {name: x.clone() for name, x in base.items()}
    made = merge("* = " + call.format("base" if kind == "the base itself" else "a"), {"base": base, "a": copy})
    assert all(torch.equal(made[name], x) for name, x in base.items())


@pytest.mark.parametrize("call", UNBASED)
def test_zeros_stay_zeros(call: str) -> None:
    zeros = {name: torch.zeros_like(x) for name, x in plain(1).items()}
    made = merge("* = " + call.format("a"), {"a": zeros})
    assert all(torch.equal(made[name], x) for name, x in zeros.items())


def test_density_0_leaves_the_base_where_a_number_varies() -> None:
    base, a = plain(1), plain(2)
    made = merge('* = della(a, density={"row": 0, _: 1})', {"base": base, "a": a})
    assert torch.equal(made["row"], base["row"])
    torch.testing.assert_close(made["kernel"], a["kernel"])


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_what_is_not_finite(odd: float) -> None:
    """It shows in the output; `arcee_fusion` takes such rows from b."""
    a = {"x": torch.tensor([[1.0, 2, 3], *[[4.0, 5, 6]] * 7])}
    b = {"x": torch.tensor([[2.0, odd, 9], *[[4.0, 5, 6]] * 6, [4, 5, 60]])}
    inputs_ = {"base": {"x": torch.zeros(8, 3)}, "a": a, "b": b}
    fused = merge("* = arcee_fusion(a, b)", inputs_)["x"]
    assert not torch.isfinite(fused[0, 1])
    assert torch.equal(fused[0, ::2], b["x"][0, ::2])
    assert torch.equal(fused[1:], b["x"][1:])
    shown = merge("* = della_linear(a, b, density=[0.5, 1])", inputs_)["x"]
    assert not torch.isfinite(shown[0, 1])
    assert torch.isfinite(shown[1]).all()
    assert not torch.isfinite(merge("* = add_cosine_a(a, b)", inputs_)["x"][0, 1])
    assert torch.isfinite(merge("* = add_cosine_a(a, b)", inputs_)["x"][:, 2]).all()
    assert not torch.isfinite(merge("* = nuslerp(a, b, flatten=false, row_wise=true)", inputs_)["x"][0, 1])


def test_row_wise_alone_changes_nothing() -> None:
    inputs_ = {"a": plain(1), "b": plain(2)}
    one, other = (merge(f"* = nuslerp(a, b, row_wise={way})", inputs_) for way in ("true", "false"))
    assert all(torch.equal(one[name], x) for name, x in other.items())


def test_share_and_bias_of_della() -> None:
    """The kept follow their probabilities within 4 sigma, by tenth of rank, and the mean is that of
    the whole."""
    n, density, epsilon = 200_000, 0.4, 0.3
    delta = torch.tensor(np.random.default_rng(4).permutation(n) + 1, dtype=torch.float32) / n
    models_ = {"base": {"x": torch.zeros(n)}, "a": {"x": delta}}
    kept = merge(f"* = della_linear(a, density={density}, epsilon={epsilon}, rescale=none)", models_)["x"] != 0
    for tenth in range(10):
        within = (delta * 10 - 1e-6).int() == tenth
        p = density - epsilon + 2 * epsilon * (tenth + 0.5) / 10
        sigma = math.sqrt(p * (1 - p) * int(within.sum()))
        assert abs(int(kept[within].sum()) - p * int(within.sum())) < 4 * sigma
    unbiased = merge(f"* = della_linear(a, density={density}, epsilon={epsilon})", models_)["x"]
    assert unbiased.double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_the_same_bytes_whatever_blocks_and_lanes() -> None:
    shapes = {"matrix": (500, 300), "wide": (2, 70_001), "tall": (40_001, 3)}
    a, b, base = (Inputs(shapes, False, "float32", 9).tensors(k) for k in range(3))
    recipe = (
        "* = della(a, b, density=0.5) + arcee_fusion(a, b) + add_cosine_b(a, b, alpha=0.1)"
        " + nuslerp(a, b, flatten=false, row_wise=true)"
    )
    first = merge(recipe, {"a": a, "b": b, "base": base}, Options(lanes=1, check_graph=True))
    other = merge(recipe, {"a": a, "b": b, "base": base}, Options(lanes=3, block=1 << 16))
    assert all(torch.equal(first[name], other[name]) for name in shapes)


def test_a_probability_for_each_element() -> None:
    n = 1000
    a = {"x": torch.arange(1.0, n + 1)}
    made = merge("* = where(keep(a, row_rank(a)), 1, 0) + 0*a", {"a": a})["x"]
    key = reference.key_of(0, "x", "a")
    chances = naive.ranks(wide(a)["x"])
    assert made.tolist() == [float((reference.splitmix64(key, i) >> 40) / 2**24 < chances[i]) for i in range(n)]
    with pytest.raises(mergec.MergecError, match="the shapes differ"):
        merge("output(like=a)\n* = where(keep(a, b), a, 0)", {"a": a, "b": {"x": torch.ones(3)}})


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("della(a, density=0.9)", "E0214", "must lie between 0 and 1"),
        ("della(a, density=0.15)", "E0214", "must lie between 0 and 1"),
        ('della_linear(a, b, density=[1, {"row": 0.1, _: 0.5}])', "E0214", "must lie between 0 and 1"),
        ("della(a, epsilon=-0.1, density=0.5)", "E0209", "must lie in"),
        ('della(a, rescale="half")', "E0214", "`rescale` is"),
        ("della(a, b, epsilon=[0.1])", "E0210", "a list of 1 for 2 models"),
        ("arcee_fusion(a)", "E0204", "b"),
        ("quantile(a, 1.5) * a", "E0209", "is 1.5"),
        ("quantile(a, total(a)) * a", "E0218", "can't depend on the weights"),
        ("quantile(1, 0.5) * a", "E0208", "a number"),
        ("column_sum(1) * a", "E0208", "a number"),
    ],
)
def test_mistakes(call: str, code: str, words: str) -> None:
    with pytest.raises(mergec.MergecError) as caught:
        merge(f"* = {call}", {"base": plain(0), "a": plain(1), "b": plain(2)})
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    assert words in diagnostic.message
