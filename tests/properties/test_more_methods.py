"""The other methods against `reference_more.py`, and what they do with zeros, one model, NaN and
mistakes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import mergec
import numpy as np
import pytest
import reference
import reference_more as naive
import torch
from drawn import LABELS, Inputs, agree, inputs, names_in, numbers, text, wide
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from merging import Tensors, merge
from profiles import examples

few = examples(25, *HealthCheck)
NAMES = ("x", "y.weight", "z")
above_zero = st.one_of(st.just(1.0), st.floats(0.05, 2).map(lambda x: round(x, 3)))
shares = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.29]), st.floats(0, 1).map(lambda x: round(x, 3)))


@functools.cache
def flag(value: bool) -> str:
    return str(value).lower()


def models(given: Inputs, count: int, *, base: bool = True) -> dict[str, Tensors]:
    own = {label: given.tensors(k) for k, label in enumerate(LABELS[:count])}
    return {"base": given.tensors(-1)} | own if base else own


def compare(
    recipe: str,
    given: Inputs,
    count: int,
    wanted: Callable[[list[reference.Array], reference.Array], reference.Merged | tuple[reference.Array, ...]],
) -> None:
    """The recipe's result is what the reference makes of every tensor's models and base."""
    inputs_ = models(given, count)
    made = merge(recipe, inputs_)
    arrays = {label: wide(tensors) for label, tensors in inputs_.items()}
    for name in given.shapes:
        found = wanted([arrays[label][name] for label in LABELS[:count]], arrays["base"][name])
        if isinstance(found, tuple):
            agree(made[name], *found)
        else:
            agree(made[name], found.value, found.size, found.sure)


# --- directions ----------------------------------------------------------------------------------


@few
@given(inputs(NAMES), st.tuples(numbers, numbers), st.booleans(), st.sampled_from(["tensor", "row", "column"]))
def test_nuslerp(given: Inputs, weights: tuple[float, float], based: bool, along: str) -> None:
    if 1e-6 <= abs(sum(weights)) < 0.05:
        weights = (1.0, 2.0)
    base, flatten, first = "base" if based else "none", flag(along == "tensor"), flag(along == "column")
    call = f"a, b, weight={text(list(weights))}, base={base}, flatten={flatten}, row_wise={first}"
    compare(
        f"* = nuslerp({call})", given, 2, lambda m, z: naive.nuslerp(m[0], m[1], weights, z if based else None, along)
    )


@few
@given(inputs(NAMES), st.lists(numbers, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_multislerp(given: Inputs, weights: list[float], based: bool, normalize: bool) -> None:
    if normalize and abs(sum(weights)) < 0.05:
        weights = [abs(w) + 0.1 for w in weights]
    base = "base" if based else "none"
    call = f"{', '.join(names_in(weights))}, weight={text(weights)}, base={base}, normalize_weights={flag(normalize)}"
    compare(
        f"* = multislerp({call})",
        given,
        len(weights),
        lambda m, z: naive.multislerp(m, weights, z if based else None, normalize),
    )


@few
@given(inputs(NAMES), st.lists(above_zero, min_size=1, max_size=3), st.sampled_from([0, 1, 10, 40]))
def test_karcher(given: Inputs, weights: list[float], rounds: int) -> None:
    call = f"{', '.join(names_in(weights))}, weight={text(weights)}, max_iter={rounds}"
    wanted = (
        (lambda m, _: (m[0], np.abs(m[0]))) if len(weights) == 1 else (lambda m, _: naive.karcher(m, weights, rounds))
    )
    compare(f"* = karcher({call})", given, len(weights), wanted)


@few
@given(inputs(NAMES), st.integers(1, 3), st.sampled_from([1e-6, 0.1]), st.sampled_from([0, 3, 100]))
def test_geometric_median(given: Inputs, count: int, eps: float, rounds: int) -> None:
    call = f"{', '.join(LABELS[:count])}, eps={eps}, maxiter={rounds}"
    compare(f"* = geometric_median({call})", given, count, lambda m, _: naive.geometric_median(m, eps, rounds))


@few
@given(inputs(NAMES), st.integers(2, 3), st.booleans(), st.sampled_from([None, (0, 1), (-0.5, 0.7)]))
def test_model_stock(given: Inputs, count: int, rows: bool, bounds: tuple[float, float] | None) -> None:
    limits = "none" if bounds is None else text(list(bounds))
    call = f"{', '.join(LABELS[:count])}, filter_wise={flag(rows)}, t_range={limits}"
    compare(
        f"* = model_stock({call})",
        given,
        count,
        lambda m, z: naive.model_stock(m, z, "row" if rows else "tensor", bounds),
    )


# --- task vectors --------------------------------------------------------------------------------


@few
@given(
    inputs(NAMES),
    st.lists(st.tuples(numbers, shares, shares), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([None, "l1", "inv_density"]),
    st.booleans(),
)
def test_breadcrumbs(
    given: Inputs, options: list[tuple[float, float, float]], normalize: bool, rescale: str | None, ties: bool
) -> None:
    weights, densities, gammas = (list(column) for column in zip(*options, strict=True))
    if not ties and normalize and 1e-8 < abs(sum(weights)) < 0.05:
        weights = [abs(w) + 0.1 for w in weights]
    mode = "none" if rescale is None else f'"{rescale}"'
    call = (
        f"{', '.join(names_in(weights))}, weight={text(weights)}, density={text(densities)}, gamma={text(gammas)}, "
        f"normalize={flag(normalize)}, rescale={mode}, lambda=0.7"
    )
    merge_ = reference.elected if ties else reference.combined
    compare(
        f"* = breadcrumbs{'_ties' if ties else ''}({call})",
        given,
        len(weights),
        lambda m, z: merge_(z, naive.bands(m, z, densities, gammas, rescale), weights, normalize, 0.7),
    )


@few
@given(inputs(NAMES), st.integers(1, 3), shares, st.sampled_from([0.0, 1e-6, 0.01]))
def test_sce(given: Inputs, count: int, share: float, floor: float) -> None:
    call = f"{', '.join(LABELS[:count])}, select_topk={share!r}, floor={floor!r}"
    compare(f"* = sce({call})", given, count, lambda m, z: naive.sce(m, z, share, floor))


@few
@given(inputs(("p", "q", "r", "s", "t", "u", "v")), st.integers(1, 3), shares, numbers)
def test_masks_over_several_models(given: Inputs, count: int, share: float, scale: float) -> None:
    labels, k = ", ".join(LABELS[:count]), min(count, 2)
    methods: dict[str, tuple[str, Callable[..., reference.Merged | tuple[reference.Array, ...]]]] = {
        "p": (f"ram({labels})", lambda m, z: naive.ramplus(m, z, 0, 0)),
        "q": (f"ramplus_tl({labels}, r={scale!r}, alpha=0.6)", lambda m, z: naive.ramplus(m, z, scale, 0.6)),
        "r": (
            f"consensus({labels}, tall_lambda={share!r}, k={k}, alpha={scale!r})",
            lambda m, z: naive.consensus(m, z, [share] * count, k, scale),
        ),
        "s": (f"tall_mask({labels}, task={count - 1})", lambda m, z: naive.tall(m, z, 0.4, count - 1)),
        "t": (f"magmax({labels}, scale={scale!r})", lambda m, z: naive.magmax(m, z, scale)),
        "u": (f"emr({labels})", naive.emr),
        "v": (
            f"localize_stitch({labels}, density={share!r})",
            lambda m, z: naive.stitched(m, z, [reference.largest(d, share) for d in reference.deltas(m, z)]),
        ),
    }
    together(given, count, methods)


def together(
    given: Inputs,
    count: int,
    methods: dict[str, tuple[str, Callable[..., reference.Merged | tuple[reference.Array, ...]]]],
) -> None:
    """One recipe with another method for every tensor."""
    inputs_ = models(given, count)
    made = merge("\n".join(f'"{name}" = {call}' for name, (call, _) in methods.items()), inputs_)
    arrays = {label: wide(tensors) for label, tensors in inputs_.items()}
    for name, (call, wanted) in methods.items():
        found = wanted([arrays[label][name] for label in LABELS[:count]], arrays["base"][name])
        value, *rest = found if isinstance(found, tuple) else (found.value, found.size, found.sure)
        try:
            agree(made[name], value, *rest)
        except AssertionError as error:
            raise AssertionError(f"{call}: {error}") from error


@few
@given(inputs(tuple("defghijklm")), st.one_of(numbers, st.just(1e-3)), shares)
def test_methods_by_element(given: Inputs, alpha: float, share: float) -> None:
    def size(m: list[reference.Array], z: reference.Array) -> reference.Array:
        return np.asarray((1 + 2 * abs(alpha)) * (sum(np.abs(x) for x in m) + np.abs(z)))

    def projected(x: reference.Array, y: reference.Array, extra: reference.Array) -> tuple[reference.Array, ...]:
        value = naive.perpendicular(x, y)
        scale = np.abs(y) + np.abs(y - value) + extra
        return value, scale

    def added(m: list[reference.Array], z: reference.Array) -> tuple[reference.Array, ...]:
        x, y = reference.deltas([m[0], m[1]], z)
        value, scale = projected(x, y, np.abs(z))
        return m[0] + alpha * value, np.abs(m[0]) + abs(alpha) * scale

    def beside(m: list[reference.Array], z: reference.Array) -> reference.Array:
        low, high = np.minimum(m[0], m[1]), np.maximum(m[0], m[1])
        return np.asarray(np.clip(m[0] + alpha * (m[1] - z), low, high))

    methods: dict[str, tuple[str, Callable[..., reference.Merged | tuple[reference.Array, ...]]]] = {
        "d": (f"nearswap(a, b, t={alpha!r})", lambda m, z: (naive.nearswap(m[0], m[1], alpha), size(m, z))),
        "e": (
            f"add_difference(a, b - base, alpha={alpha!r})",
            lambda m, z: (m[0] + alpha * (m[1] - z), size(m, z)),
        ),
        "f": (
            f"add_difference(a, b - base, alpha={alpha!r}, clamp_to=b)",
            lambda m, z: (beside(m, z), size(m, z)),
        ),
        "g": ("perpendicular(a, b)", lambda m, z: projected(m[0], m[1], 0 * z)),
        "h": (f"add_perpendicular(a, b, base, alpha={alpha!r})", added),
        "i": (
            f"train_difference(a, b, base, alpha={alpha!r})",
            lambda m, z: (naive.train_difference(m[0], m[1], z, alpha), size(m, z)),
        ),
        "j": (
            f"add_opposite(a, b, base, alpha={alpha!r})",
            lambda m, z: (naive.add_opposite(m[0], m[1], z, alpha), size(m, z)),
        ),
        "k": (
            f"add_strict_opposite(a, b, base, alpha={alpha!r})",
            lambda m, z: (naive.add_strict_opposite(m[0], m[1], z, alpha), size(m, z)),
        ),
        "l": (f"ema(a, b, c, beta={share!r})", lambda m, z: (naive.ema(m, share), size(m, z))),
        "m": (
            f"clamp_to(base, a, b, c, stiffness={share!r})",
            lambda m, z: (naive.clamped(z, m, share), size(m, z)),
        ),
    }
    together(given, 3, methods)


@few
@given(inputs(NAMES), st.integers(1, 3))
def test_n_average(given: Inputs, count: int) -> None:
    compare(
        f"* = n_average({', '.join(LABELS[:count])})",
        given,
        count,
        lambda m, _: (np.asarray(sum(m) / count), np.asarray(sum(np.abs(x) for x in m))),
    )


# --- where there is nothing to do ----------------------------------------------------------------

SHAPES = {"scalar": (), "none": (0,), "one": (1,), "row": (7,), "matrix": (3, 4), "kernel": (2, 3, 2, 2)}
WITH_BASE = {
    "nuslerp": "nuslerp({0}, {0}, base=base)",
    "nuslerp by row": "nuslerp({0}, {0}, base=base, flatten=false)",
    "nuslerp by column": "nuslerp({0}, {0}, base=base, flatten=false, row_wise=true)",
    "multislerp": "multislerp({0}, {0}, base=base)",
    "breadcrumbs": "breadcrumbs({0}, {0}, weight=0.5)",
    "breadcrumbs_ties": "breadcrumbs_ties({0}, {0}, normalize=true)",
    "sce": "sce({0}, {0})",
    "ram": "ram({0}, {0})",
    "ramplus_tl": "ramplus_tl({0}, {0})",
    "model_stock": "model_stock({0}, {0})",
    "model_stock by row": "model_stock({0}, {0}, filter_wise=true)",
    "magmax": "magmax({0}, {0}, scale=1)",
    "emr": "emr({0}, {0})",
    "localize_stitch": "localize_stitch({0}, {0}, density=1)",
    "consensus": "consensus({0}, {0}, alpha=0.5)",
    "tall_mask": "base + 0.5*(tall_mask({0}, {0}) - base)",
}
WITHOUT_BASE = {
    "nuslerp": "nuslerp({0}, {0})",
    "multislerp": "multislerp({0}, {0}, {0})",
    "karcher": "karcher({0}, {0}, {0}, weight=[1, 2, 3])",
    "geometric_median": "geometric_median({0}, {0}, {0})",
    "nearswap": "nearswap({0}, {0}, t=0.1)",
    "n_average": "n_average({0}, {0})",
    "ema": "ema({0}, {0})",
    "clamp_to": "clamp_to({0}, {0}, {0}, stiffness=1)",
    "train_difference": "train_difference({0}, base, base)",
    "add_opposite": "add_opposite({0}, base, base)",
}
ALONE = {
    "multislerp": "multislerp({0})",
    "karcher": "karcher({0})",
    "geometric_median": "geometric_median({0})",
    "breadcrumbs": "breadcrumbs({0})",
    "breadcrumbs_ties": "breadcrumbs_ties({0}, normalize=true)",
    "sce": "sce({0})",
    "ram": "ram({0})",
    "ramplus_tl": "ramplus_tl({0})",
    "magmax": "magmax({0}, scale=1)",
    "emr": "emr({0})",
    "localize_stitch": "localize_stitch({0}, density=1)",
    "consensus": "consensus({0}, k=1)",
    "tall_mask": "tall_mask({0})",
    "n_average": "n_average({0})",
    "ema": "ema({0})",
    "clamp_to": "clamp_to({0}, {0})",
}
SAME = [*WITH_BASE.values(), *WITHOUT_BASE.values(), *ALONE.values()]


def plain(seed: int) -> dict[str, torch.Tensor]:
    return Inputs(SHAPES, False, "float32", seed).tensors(seed)


def zeros() -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("call", SAME)
def test_the_same_model_several_times_is_that_model(call: str) -> None:
    inputs_ = {"base": plain(1), "a": plain(2)}
    made = merge("* = " + call.format("a"), inputs_)
    for name, x in inputs_["a"].items():
        torch.testing.assert_close(made[name], x, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("call", WITH_BASE.values())
@pytest.mark.parametrize("kind", ["the base itself", "a copy"])
def test_deltas_of_zero_leave_the_base(call: str, kind: str) -> None:
    """As the compiler knows, or as only the run finds out."""
    base = plain(1)
    copy = {name: x.clone() for name, x in base.items()}
    made = merge("* = " + call.format("base" if kind == "the base itself" else "a"), {"base": base, "a": copy})
    assert all(torch.equal(made[name], x) for name, x in base.items())


@pytest.mark.parametrize("call", [*WITHOUT_BASE.values(), *ALONE.values(), "perpendicular({0}, base)"])
def test_zeros_stay_zeros(call: str) -> None:
    made = merge("* = " + call.format("a"), {"base": zeros(), "a": zeros()})
    assert all(torch.equal(made[name], x) for name, x in zeros().items())


def test_opposite_tensors() -> None:
    """Lengths of the parts are those of the inputs: no method blows up where the directions
    cancel."""
    a, b, c = plain(1), {n: -x for n, x in plain(1).items()}, {n: -2 * x for n, x in plain(1).items()}
    inputs_ = {"a": a, "b": b, "c": c}
    for call, factor in {
        "nuslerp(a, c)": -0.5,
        "nuslerp(a, c, flatten=false)": -0.5,
        "multislerp(a, b, weight=[1, 1])": 0.0,
        "multislerp(a, b, a, b)": 0.0,
        "karcher(a, c)": 1.5,
        "karcher(a, b, c)": -4 / 3,
        "geometric_median(a, b, a)": 1.0,
    }.items():
        made = merge(f"* = {call}", inputs_)
        for name, x in a.items():
            torch.testing.assert_close(made[name], factor * x, rtol=1e-5, atol=2e-6, msg=lambda m, c=call: f"{c}: {m}")


@pytest.mark.parametrize("call", SAME)
@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_what_is_not_finite_shows_in_the_output(call: str, odd: float) -> None:
    a = {"x": torch.tensor([1.0, odd, 2.0])}
    made = merge("* = " + call.format("a"), {"base": {"x": torch.tensor([3.0, 4.0, 5.0])}, "a": a})
    assert not torch.isfinite(made["x"][1])


def test_a_count_that_comes_of_the_weights() -> None:
    base, n = {"x": torch.zeros(200_000)}, 200_000
    a = {"x": torch.tensor(np.random.default_rng(3).standard_normal(n), dtype=torch.float32)}
    made = merge("* = where(rank_mask(a, int(count(a > 1) / 2)), 1, base)", {"base": base, "a": a})
    wanted = int((a["x"] > 1).sum()) // 2
    chosen = a["x"].abs()[made["x"] == 1]
    assert chosen.numel() == wanted
    assert chosen.min() >= torch.topk(a["x"].abs(), wanted).values.min()


@pytest.mark.parametrize(("k", "kept"), [("-1", 0), ("0", 0), ("2.9", 2), ("99", 5), ("total(a) - 14", 1)])
def test_counts_at_the_edge(k: str, kept: int) -> None:
    made = merge(f"* = where(rank_mask(a, {k}), 1, 0) + 0*a", {"a": {"x": torch.tensor([1.0, 2, 3, 4, 5])}})
    assert made["x"].tolist() == [0.0] * (5 - kept) + [1.0] * kept


def test_zeros_that_the_compiler_finds_are_looked_at_like_others() -> None:
    a = {"x": torch.tensor([1.0, -2, 3])}
    for call in ("total(a - a)", "dot(a - a, a)", "count(a - a)", "largest(a - a)", "total(row_sum(a - a))"):
        assert merge(f"* = {call} * a", {"a": a})["x"].tolist() == [0, 0, 0], call
    assert merge("* = rank_mask(a - a, 1) * a", {"a": a})["x"].tolist() == [1, 0, 0]
    assert merge("* = a + count(a - a == 0)", {"a": a})["x"].tolist() == [4, 1, 6]


def family(bias: bool) -> dict[str, object]:
    """A Llama-style checkpoint of one layer, with or without a bias that the family may lack."""
    layers = [f"model.layers.0.{x}_proj" for x in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o")]
    layers += [f"model.layers.0.mlp.{x}_proj" for x in ("gate", "up", "down")]
    tensors = {f"{name}.weight": ("F32", (4, 4)) for name in ("model.embed_tokens", *layers)}
    norms = ("model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm")
    tensors |= {f"{name}.weight": ("F32", (4,)) for name in norms}
    if bias:
        tensors["model.layers.0.self_attn.q_proj.bias"] = ("F32", (4,))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": True}
    return {"tensors": tensors, "config": config}


@pytest.mark.parametrize("call", [*SAME, "sce({0}, {0}, select_topk=0.5)", "breadcrumbs({0}, density=0.5)"])
@pytest.mark.parametrize("base", ["base", "a"])
def test_a_tensor_that_a_model_lacks_is_zero(call: str, base: str) -> None:
    """It is a number to the compiler, whether another of the inputs has it or none."""
    catalog = mergec.MemoryCatalog({"./like": family(True), "./base": family(True), "./a": family(False)})
    lets = f'let like = model("./like")\nlet base = model("./{base}")\nlet a = model("./a")\noutput(like=like)\n'
    mergec.compile(f"{lets}* = {call.format('a')}", catalog=catalog, device="cpu")


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("karcher()", "E0214", "needs a model"),
        ("karcher(a, b, weight=[1, -1])", "E0209", "must lie in"),
        ("karcher(a, b, weight=0)", "E0214", "add up to zero"),
        ("karcher(a, b, max_iter=1.5)", "E0208", "an integer"),
        ("multislerp(a, b, weight=[1, -1])", "E0214", "add up to zero"),
        ("multislerp(a, b, eps=0)", "E0214", "above 0"),
        ("geometric_median(a, b, eps=0)", "E0214", "above 0"),
        ("model_stock(a)", "E0214", "two models or more"),
        ("model_stock(a, b, t_range=[0])", "E0214", "a list of two numbers"),
        ("nuslerp(a, b, weight=[1, 2, 3])", "E0210", "a list of 3 for 2 models"),
        ("breadcrumbs(a, b, density=1.2)", "E0209", "must lie in"),
        ("breadcrumbs(a, b, gamma=[0.1])", "E0210", "a list of 1 for 2 models"),
        ("consensus(a, b, k=3)", "E0214", "larger than the number of models"),
        ("tall_mask(a, b, task=2)", "E0209", "no model number 2"),
        ("localize_stitch(a, b)", "E0204", "density"),
        ("clamp_to(a)", "E0214", "needs a bound"),
        ("ema(a, b, beta=2)", "E0209", "must lie in"),
        ("rank_mask(a, b)", "E0208", "a tensor and a number"),
        ("karcher_factors([[a]], 1, 10, 0)[0] * a", "E0208", "numbers, not tensors"),
        ("karcher_factors([1, 2], 1, 10, 0)[0] * a", "E0208", "a square list of lists"),
    ],
)
def test_mistakes(call: str, code: str, words: str) -> None:
    with pytest.raises(mergec.MergecError) as caught:
        merge(f"* = {call}", {"base": plain(0), "a": plain(1), "b": plain(2)})
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    assert words in diagnostic.message
