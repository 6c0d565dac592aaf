"""What holds for whole groups of methods: the order of models, a density of 1, one model with all
of its weight."""

from __future__ import annotations

import pytest
import torch
from merging import merge
from method_calls import SEVERAL

SHAPES = {"x": (12, 9), "y": (40,), "z": (2, 3, 4), "w": ()}
ORDERED = {"ema", "tall_mask", "emr task=0"}
"""Methods that mean their models by their order."""


def models(count: int = 3) -> dict[str, dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(3)
    labels = ("base", "a", "b", "c")[: count + 1]
    return {m: {n: torch.randn(shape, generator=random) for n, shape in SHAPES.items()} for m in labels}


VARIANTS = [
    (name, options)
    for name, several in SEVERAL.items()
    for options in several
    if name not in ORDERED and f"{name} {options}" not in ORDERED
]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_the_order_of_models_does_not_matter(name: str, options: str) -> None:
    given = models()
    rest = f", {options}" if options else ""
    one = merge(f"* = {name}(a, b, c{rest})", given)
    two = merge(f"* = {name}(c, a, b{rest})", given)
    for tensor in SHAPES:
        torch.testing.assert_close(two[tensor], one[tensor], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ties", "dare_ties", "della", "breadcrumbs_ties", "knots", "linear", "multislerp"])
def test_weights_go_with_their_models(name: str) -> None:
    given = models()
    one = merge(f"* = {name}(a, b, c, weight=[1, 2, 3])", given)
    two = merge(f"* = {name}(c, a, b, weight=[3, 1, 2])", given)
    for tensor in SHAPES:
        torch.testing.assert_close(two[tensor], one[tensor], rtol=1e-4, atol=1e-5)


PLAIN = "task_arithmetic(a, b, weight=[0.3, 0.9])"
ELECTED = "ties(a, b, weight=[0.3, 0.9])"


@pytest.mark.parametrize("rescale", ["none", '"l1"', '"l2"', '"linf"', '"inv_density"'])
@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        ("dare_linear({})", PLAIN),
        ("della_linear({})", PLAIN),
        ("breadcrumbs({}, gamma=0.2)", PLAIN),
        ("ties({})", ELECTED),
        ("dare_ties({}, normalize=true)", ELECTED),
        ("della({})", ELECTED),
        ("breadcrumbs_ties({}, normalize=true, gamma=0.2)", ELECTED),
    ],
)
def test_a_density_of_one_keeps_all(call: str, wanted: str, rescale: str) -> None:
    given = models(2)
    made = merge(f"* = {call.format(f'a, b, weight=[0.3, 0.9], density=1, rescale={rescale}')}", given)
    expected = merge(f"* = {wanted}", given)
    for tensor in SHAPES:
        torch.testing.assert_close(made[tensor], expected[tensor], rtol=1e-6, atol=1e-6)


def test_a_density_of_one_in_methods_without_weights() -> None:
    given = models(2)
    for call, wanted in (
        ("localize_stitch(a, b, density=1)", "base + ((a - base) + (b - base)) / 2"),
        ("sce(a, b, select_topk=1)", "sce(a, b)"),
        ('ties(a, b, density=1, scope="model")', "ties(a, b)"),
        ("knots(a, b, density=1)", "knots(a, b)"),
    ):
        made, expected = merge(f"* = {call}", given), merge(f"* = {wanted}", given)
        for tensor in SHAPES:
            torch.testing.assert_close(made[tensor], expected[tensor], rtol=1e-6, atol=1e-6)
