"""Every method against `reference.py`: any shapes, dtypes, weights, densities and layer maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mergec
import numpy as np
import pytest
import reference
import torch
from drawn import Inputs, agree, densities, inputs, names_in, numbers, text, wide
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from merging import merge
from profiles import examples

LAYERS = 4


# --- averages and arcs ---------------------------------------------------------------------------

slow = examples(30, *HealthCheck)


@slow
@given(inputs(), st.lists(numbers, min_size=1, max_size=3), st.booleans())
def test_linear(given: Inputs, weights: list[float], normalize: bool) -> None:
    if normalize and abs(sum(weights)) < 0.05:
        weights = [abs(w) + 0.1 for w in weights]
    labels = names_in(weights)
    models = {label: given.tensors(k) for k, label in enumerate(labels)}
    made = merge(f"* = linear({', '.join(labels)}, weight={text(weights)}, normalize={str(normalize).lower()})", models)
    for name in given.shapes:
        arrays = [wide(models[label])[name] for label in labels]
        size = sum(abs(w) * np.abs(x) for w, x in zip(weights, arrays)) / (abs(sum(weights)) if normalize else 1)
        agree(made[name], reference.linear(arrays, weights, normalize), size)


@slow
@given(inputs(), st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1.5, -0.5]), st.floats(0, 1)), st.sampled_from("rsonz"))
def test_slerp(given: Inputs, t: float, relation: str) -> None:
    """Random, same, opposite, nearly parallel and zero second models."""
    a, b = given.tensors(0), given.tensors(1)
    b = {
        "r": b,
        "s": a,
        "o": {n: -2 * x for n, x in a.items()},
        "n": {n: (x + 0.01 * b[n]).to(x.dtype) for n, x in a.items()},
        "z": {n: torch.zeros_like(x) for n, x in a.items()},
    }[relation]
    made = merge(f"* = slerp(a, b, t={t!r})", {"a": a, "b": b})
    for name in given.shapes:
        x, y = wide(a)[name], wide(b)[name]
        # just this side of parallel the arc's weights are quotients of small sines
        agree(made[name], reference.slerp(x, y, t), 40 * (np.abs(x) + np.abs(y)))


@slow
@given(inputs(), st.one_of(st.none(), numbers))
def test_passthrough(given: Inputs, scale: float | None) -> None:
    a = given.tensors(0)
    made = merge(f"* = passthrough(a{'' if scale is None else f', scale={scale!r}'})", {"a": a})
    for name in given.shapes:
        x = wide(a)[name]
        agree(made[name], reference.passthrough(x, scale), np.abs(x))
        if scale is None:
            assert torch.equal(made[name], a[name])


@slow
@given(inputs(), numbers, numbers)
def test_arithmetic(given: Inputs, s: float, t: float) -> None:
    a, base = given.tensors(0), given.tensors(-1)
    made = merge(f"* = base + {s!r} * (a - base) ** 2 / 2 - abs({t!r} * a)", {"base": base, "a": a})
    for name in given.shapes:
        x, z = wide(a)[name], wide(base)[name]
        wanted = z + s * (x - z) ** 2 / 2 - np.abs(t * x)
        agree(made[name], wanted, np.abs(z) + np.abs(s) * (np.abs(x) + np.abs(z)) ** 2 + np.abs(t * x))


# --- task vectors --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choices:
    """Options of a method with a base, for one to three models."""

    weights: list[float]
    densities: list[float]
    normalize: bool
    scale: float
    rescale: str | None


@st.composite
def options(draw: st.DrawFn) -> Choices:
    weights = draw(st.lists(numbers, min_size=1, max_size=3))
    return Choices(
        weights,
        [draw(densities) for _ in weights],
        draw(st.booleans()),
        draw(numbers),
        draw(st.sampled_from([None, "l1", "l2", "linf", "inv_density"])),
    )


def call(method: str, o: Choices, *, sparse: bool = True) -> str:
    labels = ", ".join(names_in(o.weights))
    rescale = "none" if o.rescale is None else f'"{o.rescale}"'
    extra = f", density={text(o.densities)}, rescale={rescale}" if sparse else ""
    return (
        f"* = {method}({labels}, weight={text(o.weights)}, normalize={str(o.normalize).lower()}, "
        f"lambda={o.scale!r}{extra})"
    )


def check(
    method: str, given: Inputs, o: Choices, wanted: Callable[..., reference.Merged], *, sparse: bool = True
) -> None:
    labels = names_in(o.weights)
    models = {"base": given.tensors(-1)} | {label: given.tensors(k) for k, label in enumerate(labels)}
    made = merge(call(method, o, sparse=sparse), models)
    for name in given.shapes:
        base, arrays = wide(models["base"])[name], [wide(models[label])[name] for label in labels]
        found = wanted(name, arrays, base)
        agree(made[name], found.value, found.size, found.sure)


def keys(o: Choices, name: str) -> list[int]:
    return [reference.key_of(0, name, label) for label in names_in(o.weights)]


@slow
@given(inputs(), options())
def test_task_arithmetic(given: Inputs, o: Choices) -> None:
    def wanted(_: str, arrays: list[reference.Array], base: reference.Array) -> reference.Merged:
        return reference.combined(base, reference.deltas(arrays, base), o.weights, o.normalize, o.scale)

    check("task_arithmetic", given, o, wanted, sparse=False)


@slow
@given(inputs(), options())
def test_ties(given: Inputs, o: Choices) -> None:
    def wanted(_: str, arrays: list[reference.Array], base: reference.Array) -> reference.Merged:
        vectors = reference.trimmed(arrays, base, o.densities, o.rescale)
        return reference.elected(base, vectors, o.weights, o.normalize, o.scale)

    check("ties", given, o, wanted)


def test_a_sum_of_zero_elects_the_positive_and_zeros_do_not_vote() -> None:
    zero = torch.zeros(5)
    a, b = torch.tensor([1.0, -1, 0, 2, 0]), torch.tensor([-1.0, 1, 0, 0, -4])
    made = merge("* = ties(a, b, weight=[1, 0.5], lambda=2)", {"base": {"x": zero}, "a": {"x": a}, "b": {"x": 2 * b}})
    assert made["x"].tolist() == [2, 4, 0, 4, -16]


@slow
@given(inputs(), options(), st.sampled_from(["dare_linear", "dare_ties"]))
def test_dare(given: Inputs, o: Choices, method: str) -> None:
    def wanted(name: str, arrays: list[reference.Array], base: reference.Array) -> reference.Merged:
        vectors = reference.dropped(arrays, base, o.densities, o.rescale, keys(o, name))
        merge_ = reference.combined if method == "dare_linear" else reference.elected
        return merge_(base, vectors, o.weights, o.normalize, o.scale)

    check(method, given, o, wanted)


# --- numbers that vary over the output -----------------------------------------------------------

LAYERED = {
    "model.embed_tokens.weight": (6, 4),
    "model.norm.weight": (4,),
    "lm_head.weight": (6, 4),
} | {
    f"model.layers.{i}.{name}": shape
    for i in range(LAYERS)
    for name, shape in {
        "self_attn.q_proj.weight": (4, 4),
        "self_attn.q_proj.bias": (4,),
        "mlp.up_proj.weight": (8, 4),
        "mlp.down_proj.weight": (4, 8),
        "input_layernorm.weight": (4,),
    }.items()
}


def depth_of(name: str) -> float:
    if ".layers." in name:
        return int(name.split(".")[2]) / (LAYERS - 1)
    return 0.0 if "embed" in name else 1.0


def piecewise(points: list[float], depth: float) -> float:
    return float(np.interp(depth * (len(points) - 1), range(len(points)), points))


VARYING: dict[str, Callable[[str], float]] = {
    "0.25 + depth / 2": lambda name: 0.25 + depth_of(name) / 2,
    "curve([0.1, 0.9, 0.3])": lambda name: piecewise([0.1, 0.9, 0.3], depth_of(name)),
    "curve([0, 0.5, 0.3, 0.7, 1])": lambda name: piecewise([0, 0.5, 0.3, 0.7, 1], depth_of(name)),
    "(layer + 1) / 8": lambda name: (round(depth_of(name) * (LAYERS - 1)) + 1) / 8,
    "0.2 if layer == 1 else 0.7": lambda name: 0.2 if round(depth_of(name) * (LAYERS - 1)) == 1 else 0.7,
    '{attn: 0.3, mlp: 0.7, "*.bias": 1, _: 0.5}': lambda name: (
        1.0 if name.endswith(".bias") else 0.3 if "attn" in name else 0.7 if "mlp" in name else 0.5
    ),
    '{"*.nothing": 0.9, mlp.up: 0.6, layers[1..2]: 0.2, embed: 0.1, _: 0.4}': lambda name: (
        0.6
        if "up_proj" in name and "layers" in name
        else 0.2
        if ".layers.1." in name or ".layers.2." in name
        else 0.1
        if "embed" in name
        else 0.4
    ),
    "{attn: curve([0, 1]), _: {mlp: depth, _: 0.5}} * 0.5 + 0.25": lambda name: (
        (depth_of(name) if "attn" in name or "mlp" in name else 0.5) * 0.5 + 0.25
    ),
}


@pytest.mark.parametrize("number", VARYING)
def test_a_number_varies_over_the_output(number: str) -> None:
    given = Inputs(LAYERED, False, "float32", 5)
    models = {"base": given.tensors(-1), "a": given.tensors(0), "b": given.tensors(1)}
    recipes = {
        "slerp": f"* = slerp(a, b, t={number})",
        "linear": f"* = linear(a, b, weight=[{number}, 1])",
        "ties": f"* = ties(a, b, weight=[1, 0.5], density=[{number}, 0.5])",
        "dare": f"* = dare_ties(a, b, weight=[{number}, 0.5], density={number})",
        "plain": f"* = base + ({number}) * (a - base)",
    }
    for method, recipe in recipes.items():
        made = merge(recipe, models)
        for name in LAYERED:
            base, x, y = (wide(models[label])[name] for label in ("base", "a", "b"))
            v = VARYING[number](name)
            if method == "slerp":
                value, size, sure = reference.slerp(x, y, v), 2 * (np.abs(x) + np.abs(y)), None
            elif method == "linear":
                value, size, sure = reference.linear([x, y], [v, 1]), np.abs(x) + np.abs(y), None
            elif method == "plain":
                value, size, sure = base + v * (x - base), np.abs(x) + np.abs(base), None
            else:
                if method == "ties":
                    vectors, weights = reference.trimmed([x, y], base, [v, 0.5], None), [1, 0.5]
                else:
                    seeds = [reference.key_of(0, name, label) for label in "ab"]
                    vectors, weights = reference.dropped([x, y], base, [v, v], "inv_density", seeds), [v, 0.5]
                found = reference.elected(base, vectors, weights, method == "ties", 1)
                value, size, sure = found.value, found.size, found.sure
            agree(made[name], value, size, sure)


def test_weights_that_cancel_are_an_error_even_where_they_vary() -> None:
    given = Inputs(LAYERED, False, "float32", 5)
    models = {"a": given.tensors(0), "b": given.tensors(1)}
    for weights in ("[1, -1]", "[depth, 0.5 - depth - 0.5]", "[0.1 + 0.2 * (depth + 1), -0.3 + 0 * depth]"):
        with pytest.raises(mergec.MergecError, match="E0214: the weights of `linear` add up to zero"):
            merge(f"* = linear(a, b, weight={weights})", models)


def test_an_unknown_rescale_is_an_error() -> None:
    given = Inputs({"x": (3,)}, False, "float32", 5)
    with pytest.raises(mergec.MergecError, match="rescale"):
        merge('* = ties(a, density=0.5, rescale="median")', {"base": given.tensors(-1), "a": given.tensors(0)})


def test_dividing_by_zero_is_an_error() -> None:
    given = Inputs(LAYERED, False, "float32", 5)
    with pytest.raises(mergec.MergecError, match="E0216"):
        merge("* = a / depth", {"a": given.tensors(0)})


@pytest.mark.parametrize("method", ["ties", "dare_linear", "dare_ties", "task_arithmetic"])
def test_all_of_one_model_at_weight_1_is_that_model(method: str) -> None:
    given = Inputs(LAYERED, True, "bfloat16", 5)
    models = {"base": given.tensors(-1), "a": given.tensors(0)}
    made = merge(f"* = {method}(a)", models)
    assert all(torch.equal(made[name], models["a"][name]) for name in LAYERED)


def test_float64_arithmetic() -> None:
    given = Inputs({"x": (50,)}, False, "float32", 5)
    a, base = given.tensors(0), given.tensors(-1)
    for compute, exact in (("float64", True), ("float32", False)):
        made = merge(f'output(compute="{compute}")\n* = (base + 1e6) - 1e6 + 0 * a', {"base": base, "a": a})
        wanted = ((base["x"].double() + 1e6) - 1e6).float()
        assert torch.equal(made["x"], wanted) is exact
