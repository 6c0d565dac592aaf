"""The merges that `numerics.py` measures: a recipe's call, mergekit's configuration of the same,
the exact result.

`wanted` takes the models a, b, c and the base, float64, and a tensor's name. It gives the exact
value, the size of what was added up for it, and where no rounding can have changed what was picked
(`reference.Merged`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import reference as plain
import reference_more as more
import reference_rows as rows
import reference_svd as matrices
from reference import Array, Mask, Merged

Wanted = Callable[[Sequence[Array], Array, str], Merged]
Round = Callable[[Array], Array]

WEIGHTS = (0.5, 0.3, 0.4)
DENSITY = 0.5
GAMMA = 0.1
MODELS = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class Case:
    """`call` is mergec's, `peer` what mergekit's configuration has but for dtypes (none where it
    has no such method).

    `masks` gives the elements that each model keeps, where magnitudes decide.
    """

    name: str
    call: str
    wanted: Wanted
    peer: Mapping[str, Any] | None = None
    masks: Callable[[Array], Mask] | None = None


def configuration(
    method: str, count: int, *, based: bool = True, each: Mapping[str, Sequence[float]] | None = None, **parameters: Any
) -> dict[str, Any]:
    """Of the first `count` models; `each` has options with one value per model."""
    models: list[dict[str, Any]] = [
        {"model": f"./{m}", "parameters": {k: v[i] for k, v in (each or {}).items()}}
        for i, m in enumerate(MODELS[:count])
    ]
    base = {"base_model": "./base"} if based else {}
    return {"merge_method": method, **base, "models": models, "parameters": parameters}


def pair(method: str, **parameters: Any) -> dict[str, Any]:
    """Of the models a and b, a being the base."""
    models = [{"model": "./a"}, {"model": "./b"}]
    return {"merge_method": method, "base_model": "./a", "models": models, "parameters": parameters}


def sure(value: Array, size: Array | None = None) -> Merged:
    return Merged(value, np.abs(value) if size is None else size, np.ones(value.shape, bool))


def unambiguous(deltas: Sequence[Array], masks: Callable[[Array], Mask], rounded: Round) -> Mask:
    """Where the selection does not depend on which of several equal magnitudes, once rounded, was
    taken."""
    clear = np.ones(deltas[0].shape, bool)
    for delta in deltas:
        kept, size = masks(delta), np.abs(rounded(delta))
        clear &= ~np.isin(size, np.intersect1d(size[kept], size[~kept]))
    return clear


# --- exact values --------------------------------------------------------------------------------

EACH: Mapping[str, Sequence[float]] = {"weight": WEIGHTS}
SPARSE: Mapping[str, Sequence[float]] = {"weight": WEIGHTS, "density": (DENSITY,) * 3}
WHOLE: Mapping[str, Sequence[float]] = {"weight": WEIGHTS, "density": (1.0,) * 3}
W = "weight=[0.5, 0.3, 0.4]"


def combined(m: Sequence[Array], z: Array, _: str) -> Merged:
    return plain.combined(z, plain.deltas(m, z), WEIGHTS, False, 1.0)


def elected(z: Array, deltas: Sequence[Array], normalize: bool) -> Merged:
    """A sum of zero of which not all terms are zero is skipped: whether it is zero depends on the
    weights' rounding."""
    found = plain.elected(z, deltas, WEIGHTS, normalize, 1.0)
    sizes = [np.abs(w * d) for w, d in zip(WEIGHTS, deltas, strict=True)]
    total = np.asarray(sum(w * d for w, d in zip(WEIGHTS, deltas, strict=True)))
    clear = np.asarray(np.abs(total) > 1e-5 * sum(sizes)) | (np.asarray(sum(sizes)) == 0)
    return Merged(found.value, found.size, found.sure & clear)


def whole_elected(normalize: bool) -> Wanted:
    return lambda m, z, _: elected(z, plain.deltas(m, z), normalize)


def trimmed(delta: Array) -> Mask:
    """The `DENSITY` largest, of equals the first."""
    mask = np.zeros(delta.size, bool)
    mask[descending(delta)[: max(1, int(DENSITY * delta.size))]] = True
    return mask.reshape(delta.shape)


def band(delta: Array) -> Mask:
    """The `DENSITY` that follow on the `GAMMA` largest."""
    mask = np.zeros(delta.size, bool)
    top = int(GAMMA * delta.size)
    mask[descending(delta)[top : top + int(DENSITY * delta.size)]] = True
    return mask.reshape(delta.shape)


def descending(delta: Array) -> NDArray[np.intp]:
    return np.argsort(-np.abs(delta).ravel(), kind="stable")


def kept(m: Sequence[Array], z: Array, mask: Callable[[Array], Mask]) -> list[Array]:
    return [np.where(mask(d), d, 0) for d in plain.deltas(m, z)]


def ties(m: Sequence[Array], z: Array, _: str) -> Merged:
    return elected(z, kept(m, z, trimmed), True)


def breadcrumbs(m: Sequence[Array], z: Array, _: str) -> Merged:
    return plain.combined(z, kept(m, z, band), WEIGHTS, False, 1.0)


def breadcrumbs_ties(m: Sequence[Array], z: Array, _: str) -> Merged:
    return elected(z, kept(m, z, band), False)


def arcee_fusion(m: Sequence[Array], _z: Array, _n: str) -> Merged:
    """Everywhere, though importances near the threshold fall on either side by rounding."""
    return sure(rows.arcee_fusion(m[0], m[1]).value)


def arc(m: Sequence[Array], z: Array, _: str) -> Merged:
    return sure(plain.slerp(m[0], m[1], 0.4), np.abs(m[0]) + np.abs(m[1]) + 0 * z)


def localize_stitch(m: Sequence[Array], z: Array, _: str) -> Merged:
    masks = [trimmed(d) for d in plain.deltas(m, z)]
    return sure(*more.stitched(m, z, masks))


def geometric_median(m: Sequence[Array], _z: Array, _n: str) -> Merged:
    return sure(*more.geometric_median(m))


def of_matrices(merged: Callable[[list[Array]], Array]) -> Wanted:
    """base + `merged` of the task vectors of matrices, their mean for other tensors and the
    embedding."""

    def wanted(m: Sequence[Array], z: Array, name: str) -> Merged:
        deltas = plain.deltas(m, z)
        excluded = z.ndim != 2 or "embed" in name
        change = np.asarray(sum(deltas)) / len(deltas) if excluded else merged(deltas)
        return sure(z + change, np.abs(z) + np.abs(change))

    return wanted


def rotated(m: Sequence[Array], _z: Array, _n: str) -> Merged:
    if m[0].ndim < 2:
        return sure(0.7 * m[0] + 0.3 * m[1])
    return sure(matrices.rotate(m[0], m[1], 1.0, 0.3))


PEERED: tuple[Case, ...] = (
    Case(
        "linear",
        f"linear(a, b, c, {W})",
        lambda m, _z, _n: sure(plain.linear(m, WEIGHTS)),
        configuration("linear", 3, based=False, each=EACH),
    ),
    Case("slerp", "slerp(a, b, t=0.4)", arc, pair("slerp", t=0.4)),
    Case(
        "nuslerp",
        "nuslerp(a, b, weight=[0.6, 0.4])",
        lambda m, _z, _n: more.nuslerp(m[0], m[1], (0.6, 0.4), None, "tensor"),
        configuration("nuslerp", 2, based=False, each={"weight": (0.6, 0.4)}),
    ),
    Case(
        "nuslerp of task vectors",
        "nuslerp(a, b, weight=[0.6, 0.4], base=base)",
        lambda m, z, _: more.nuslerp(m[0], m[1], (0.6, 0.4), z, "tensor"),
        configuration("nuslerp", 2, each={"weight": (0.6, 0.4)}),
    ),
    Case(
        "multislerp",
        f"multislerp(a, b, c, {W})",
        lambda m, _z, _n: more.multislerp(m, WEIGHTS, None, True),
        configuration("multislerp", 3, based=False, each=EACH),
    ),
    Case(
        "karcher",
        "karcher(a, b, c)",
        lambda m, _z, _n: more.karcher(m, (1, 1, 1)),
        configuration("karcher", 3, based=False),
    ),
    Case(
        "task_arithmetic",
        f"task_arithmetic(a, b, c, {W})",
        combined,
        configuration("task_arithmetic", 3, each=EACH, normalize=False),
    ),
    Case(
        "ties",
        f"ties(a, b, c, {W}, density={DENSITY})",
        ties,
        configuration("ties", 3, each=SPARSE, normalize=True),
        trimmed,
    ),
    Case(
        "dare_linear, density 1",
        f"dare_linear(a, b, c, {W})",
        combined,
        configuration("dare_linear", 3, each=WHOLE, normalize=False),
    ),
    Case(
        "dare_ties, density 1",
        f"dare_ties(a, b, c, {W})",
        whole_elected(False),
        configuration("dare_ties", 3, each=WHOLE, normalize=False),
    ),
    Case(
        "della, density 1",
        f"della(a, b, c, {W})",
        whole_elected(True),
        configuration("della", 3, each=WHOLE, normalize=True),
    ),
    Case(
        "della_linear, density 1",
        f"della_linear(a, b, c, {W})",
        combined,
        configuration("della_linear", 3, each=WHOLE, normalize=False),
    ),
    Case(
        "breadcrumbs",
        f"breadcrumbs(a, b, c, {W}, density={DENSITY}, gamma={GAMMA})",
        breadcrumbs,
        configuration("breadcrumbs", 3, each=SPARSE | {"gamma": (GAMMA,) * 3}, normalize=False),
        band,
    ),
    Case(
        "breadcrumbs_ties",
        f"breadcrumbs_ties(a, b, c, {W}, density={DENSITY}, gamma={GAMMA})",
        breadcrumbs_ties,
        configuration("breadcrumbs_ties", 3, each=SPARSE | {"gamma": (GAMMA,) * 3}, normalize=False),
        band,
    ),
    Case(
        "sce",
        "sce(a, b, c, floor=1e-6)",
        lambda m, z, _: more.sce(m, z, 1, 1e-6),
        configuration("sce", 3, select_topk=1.0),
    ),
    Case("ram", "ram(a, b, c)", lambda m, z, _: more.ramplus(m, z, 0, 0.2), configuration("ram", 3)),
    Case(
        "ramplus_tl",
        "ramplus_tl(a, b, c)",
        lambda m, z, _: more.ramplus(m, z, 0.1, 0.2),
        configuration("ramplus_tl", 3, r=0.1, alpha=0.2),
    ),
    Case(
        "model_stock",
        "model_stock(a, b, c, floor=1e-6)",
        lambda m, z, _: more.model_stock(m, z, "tensor", None, 1e-6),
        configuration("model_stock", 3),
    ),
    Case(
        "nearswap",
        "nearswap(a, b, t=0.0005)",
        lambda m, _z, _n: sure(more.nearswap(m[0], m[1], 0.0005)),
        pair("nearswap", t=0.0005),
    ),
    Case("arcee_fusion", "arcee_fusion(a, b)", arcee_fusion, pair("arcee_fusion")),
    Case(
        "passthrough, scaled",
        "passthrough(a, scale=0.7)",
        lambda m, _z, _n: sure(plain.passthrough(m[0], 0.7)),
        configuration("passthrough", 1, based=False, each={"scale": (0.7,)}),
    ),
)
"""What mergekit has too."""

ALONE: tuple[Case, ...] = (
    Case("n_average", "n_average(a, b, c)", lambda m, _z, _n: sure(plain.linear(m, (1, 1, 1)))),
    Case("ema", "ema(a, b, c, beta=0.9)", lambda m, _z, _n: sure(more.ema(m, 0.9))),
    Case("geometric_median", "geometric_median(a, b, c)", geometric_median),
    Case("add_difference", "add_difference(a, b - c, alpha=0.7)", lambda m, _z, _n: sure(m[0] + 0.7 * (m[1] - m[2]))),
    Case(
        "add_perpendicular",
        "add_perpendicular(a, b, base, alpha=0.7)",
        lambda m, z, _: sure(m[0] + 0.7 * more.perpendicular(m[0] - z, m[1] - z)),
    ),
    Case("train_difference", "train_difference(a, b, c)", lambda m, _z, _n: sure(more.train_difference(*m, 1.0))),
    Case("add_opposite", "add_opposite(a, b, c)", lambda m, _z, _n: sure(more.add_opposite(*m, 1.0))),
    Case(
        "add_strict_opposite",
        "add_strict_opposite(a, b, c)",
        lambda m, _z, _n: sure(more.add_strict_opposite(*m, 1.0)),
    ),
    Case("add_cosine_a", "add_cosine_a(a, b)", lambda m, _z, _n: sure(*rows.add_cosine(*m[:2], 1.0, whole=False))),
    Case(
        "add_cosine_b",
        "add_cosine_b(a, b, alpha=0.5)",
        lambda m, _z, _n: sure(*rows.add_cosine(*m[:2], 0.5, whole=True)),
    ),
    Case("clamp_to", "clamp_to(a, b, c, stiffness=0.3)", lambda m, _z, _n: sure(more.clamped(m[0], m[1:], 0.3))),
    Case("consensus", "consensus(a, b, c)", lambda m, z, _: more.consensus(m, z, [0.4] * 3, 2, 1.0)),
    Case("tall_mask", "tall_mask(a, b, c, task=1)", lambda m, z, _: more.tall(m, z, 0.4, 1)),
    Case("magmax", "magmax(a, b, c)", lambda m, z, _: sure(*more.magmax(m, z, 0.5))),
    Case("emr", "emr(a, b, c)", lambda m, z, _: more.emr(m, z)),
    Case("localize_stitch", f"localize_stitch(a, b, c, density={DENSITY})", localize_stitch, None, trimmed),
    Case("crossover", "crossover(a, b, tilt=0.5)", lambda m, _z, _n: sure(matrices.crossover(*m[:2], 0.5, 0.5))),
    Case("rotate", "rotate(a, b, alpha=0.3)", rotated),
    Case("tsv_merge", "tsv_merge(a, b, c)", of_matrices(matrices.tsv_merge)),
    Case("iso_c", "iso_c(a, b, c)", of_matrices(matrices.iso_c)),
    Case("iso_cts", "iso_cts(a, b, c)", of_matrices(lambda d: matrices.iso_cts(d, 0.8))),
    Case("star", "star(a, b, c)", of_matrices(lambda d: matrices.star(d, 40))),
    Case(
        "knots",
        "knots(a, b, c)",
        of_matrices(lambda d: matrices.knots(d, lambda parts: matrices.ties(parts, [1.0] * 3, 1.0))),
    ),
    Case("wudi, adam", "wudi(a, b, c, iters=20)", of_matrices(lambda d: matrices.wudi_adam(d, 20, 1e-5))),
    Case("wudi, closed", 'wudi(a, b, c, solver="closed")', of_matrices(matrices.wudi_closed)),
)
"""What mergec alone has, as far as a naive reference holds it."""

CASES = (*PEERED, *ALONE)
