"""Calls of every merge method of the library, for tests that hold for all of them. A new method
must be added here."""

from __future__ import annotations

from mergec.compiler.evaluate.standard_library import standard_module, standard_texts
from mergec.grammar import ast

SEVERAL = {
    "breadcrumbs": ["density=0.5, gamma=0.2"],
    "breadcrumbs_ties": ["density=0.5, gamma=0.2"],
    "consensus": ["k=1"],
    "dare_linear": ["density=0.5", 'density=0.5, rescale="l1"'],
    "dare_ties": ["density=0.5"],
    "della": ["density=0.5"],
    "della_linear": ["density=0.5", 'density=0.5, rescale="l2"'],
    "ema": [""],
    "emr": ["", "task=0"],
    "geometric_median": [""],
    "iso_c": [""],
    "iso_cts": [""],
    "karcher": [""],
    "knots": [""],
    "linear": [""],
    "lines_merge": [""],
    "localize_stitch": ["density=0.5"],
    "magmax": [""],
    "model_stock": ["", "filter_wise=true"],
    "multislerp": ["", "base=base"],
    "n_average": [""],
    "pcb": ["", 'scope="tensor"'],
    "ram": [""],
    "ramplus_tl": ["", 'scope="model"'],
    "sce": ["", "select_topk=0.5"],
    "star": [""],
    "tall_mask": [""],
    "task_arithmetic": [""],
    "ties": ["density=0.5", 'density=0.5, rescale="linf"', 'density=0.5, scope="model"'],
    "tsv_merge": [""],
    "wudi": ["iters=3", 'solver="closed"'],
}
"""Methods of any number of models, and options of each call."""

FIXED = {
    "add_cosine_a": ["a, b"],
    "add_cosine_b": ["a, b"],
    "add_difference": ["a, b - c", "a, b - c, clamp_to=b"],
    "add_opposite": ["a, b, c"],
    "add_perpendicular": ["a, b, c"],
    "add_strict_opposite": ["a, b, c"],
    "arcee_fusion": ["a, b"],
    "clamp_to": ["a, b, c, stiffness=0.5"],
    "crossover": ["a, b", "a, b, tilt=0.5", "a, b, tilt=1"],
    "lines": ["a, alpha=0.5"],
    "nearswap": ["a, b, t=0.1"],
    "nuslerp": ["a, b", "a, b, base=base", "a, b, flatten=false", "a, b, flatten=false, row_wise=true"],
    "passthrough": ["a, scale=0.5"],
    "perpendicular": ["a, b"],
    "rotate": ["a, b, alpha=0.3", "a, b, alignment=0.5"],
    "slerp": ["a, b, t=0.4"],
    "train_difference": ["a, b, c"],
    "truncate_rank": ["a, rank=2"],
}
"""The others, and the arguments of each call."""


def methods() -> set[str]:
    """The functions of the library that take models."""
    return {
        statement.name.id
        for file in standard_texts()
        for statement in standard_module(file).statements
        if isinstance(statement, ast.Def) and any(p.kind and p.kind.name == "region" for p in statement.parameters)
    }


def calls(models: str = "a, b, c") -> list[str]:
    several = [f"{name}({models}{', ' if o else ''}{o})" for name, options in SEVERAL.items() for o in options]
    return several + [f"{name}({given})" for name, options in FIXED.items() for given in options]


VALUES = [
    *calls(),
    "a ** 2 + cos(b)",
    "where(not (a > 0 or b > 0), -a, 0.5) + min(a, b)",
    "a * across(total(abs(b)))",
    "a * across_max(total(b)) + across_min(dot(a, b))",
    "topk_mask(a, 0.3) * b + keep(b, 0.5) * a",
    "b * quantile(abs(a), 0.9)",
    "c * karcher_factors([[dot(a, a), dot(a, b)], [dot(b, a), dot(b, b)]], [1, 1], 10, 1e-5)[0]",
    "c * median_factors([[dot(a, a), dot(a, b)], [dot(b, a), dot(b, b)]], 10, 1e-6, 1e-20)[1]",
    "halved(a - b)",
    "turned(b) + a",
    "1 + depth",
    "b",
]
"""A call of each, and values that together have every operation. `halved` and `turned` are kernels
of a test's own, of one element and of a whole tensor."""
