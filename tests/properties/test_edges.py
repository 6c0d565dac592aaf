"""Every merge method of the library on what is degenerate: zeros, colinear tensors, odd shapes,
NaN, one model.

Wherever inputs are finite, so is the output. How far a NaN or an infinity of one model spreads is
tabled in docs/methods.md; `UPDATE_DOCS=1 pytest tests/properties/test_edges.py` writes that table
anew.
"""

from __future__ import annotations

import functools
import math
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import mergec
import pytest
import torch
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from method_calls import FIXED, SEVERAL, calls, methods
from safetensors.torch import load_file, save_file

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
START, END = "<!-- edges -->\n", "<!-- end edges -->"

Tensors = dict[str, torch.Tensor]

SHAPES = ((), (0,), (1,), (5,), (1, 1), (3, 4), (4, 3), (3, 0), (0, 3), (2, 3, 4), (2, 3, 2, 2), (3, 2, 1, 1))
NEVER_ONE = {"model_stock"}
NO_MERGE = {"lines", "passthrough", "perpendicular", "truncate_rank"}
"""Whose result for models that are all equal is not that model."""

OF_THE_MODEL = {"emr", "lines_merge", "pcb", "ramplus_tl", "ties"}
"""Which take numbers of the whole model, so that it matters whether all of it is degenerate."""

ORDER = ("not at all", "that element", "its row", "its column", "its tensor", "the whole model")


def run(call: str, models: Mapping[str, Tensors]) -> tuple[Tensors, dict[str, int]]:
    """The merged tensors, and how many infinities and NaNs the report counts in each."""
    with tempfile.TemporaryDirectory() as folder:
        lets = []
        for label, tensors in models.items():
            save_file(tensors, f"{folder}/{label}.safetensors")
            lets.append(f'let {label} = model("{folder}/{label}.safetensors")\n')
        source = Source("<test>", "".join(lets) + f'"*" = {call}\n')
        plan = compile_recipe(source, LocalCatalog(), "test", Options(check_graph=True)).plan
        report = mergec.run(plan, f"{folder}/out")
        return load_file(f"{folder}/out/model.safetensors"), report.outcome.non_finite


@functools.cache
def degenerate() -> dict[str, Tensors]:
    """For each shape, tensors that are zero, equal, zero in one model, colinear, antiparallel, or
    in no relation."""
    random = torch.Generator().manual_seed(0)
    models: dict[str, Tensors] = {name: {} for name in ("base", "a", "b", "c")}
    for number, shape in enumerate(SHAPES):
        v, u, w, z = (torch.randn(shape, generator=random) for _ in range(4))
        nothing = torch.zeros(shape)
        relations = {
            "zero": (nothing, nothing, nothing, nothing),
            "equal": (v, v, v, v),
            "zero-norm": (u, nothing, v, w),
            "colinear": (nothing, v, 2 * v, 3 * v),
            "antiparallel": (nothing, v, -v, v),
            "any": (u, v, w, z),
        }
        for relation, tensors in relations.items():
            for name, tensor in zip(models, tensors, strict=True):
                models[name][f"{relation}.{number}"] = tensor.clone()
    return models


def check_finite(made: Tensors, counted: Mapping[str, int], models: Mapping[str, Tensors]) -> None:
    for name, tensor in models["base"].items():
        assert made[name].shape == tensor.shape
        assert made[name].isfinite().all(), f"{name}: {made[name]}"
    assert counted == {}


def test_every_method_is_here() -> None:
    assert methods() == SEVERAL.keys() | FIXED.keys()


@pytest.mark.parametrize("call", calls())
def test_degenerate_tensors_of_every_shape(call: str) -> None:
    made, counted = run(call, degenerate())
    check_finite(made, counted, degenerate())
    for name, tensor in made.items():
        if name.startswith("zero."):
            assert not tensor.any(), name
        if name.startswith("equal.") and call.partition("(")[0] not in NO_MERGE:
            torch.testing.assert_close(tensor, degenerate()["base"][name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("call", [c for c in calls() if c.partition("(")[0] in OF_THE_MODEL])
def test_models_that_are_the_base_throughout(call: str) -> None:
    same = {name: {k: t for k, t in degenerate()["a"].items() if k[:3] == "any"} for name in degenerate()}
    made, counted = run(call, same)
    check_finite(made, counted, same)
    if call.partition("(")[0] not in NO_MERGE:
        torch.testing.assert_close(made, same["a"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("call", [c for c in calls("a") if c.partition("(")[0] in SEVERAL])
def test_one_model(call: str) -> None:
    models = {n: {k: t for k, t in tensors.items() if k[:3] in ("any", "equ")} for n, tensors in degenerate().items()}
    if call.partition("(")[0] in NEVER_ONE:
        with pytest.raises(mergec.MergecError, match="E0214"):
            run(call, models)
    else:
        made, counted = run(call, models)
        check_finite(made, counted, models)


# --- what is not finite --------------------------------------------------------------------------


COPIES = 6
"""Of a tensor with an odd number, so that no random mask leaves it out of all."""


def spread(call: str, odd: float) -> str:
    """How far one odd number of a model goes at most; the model a is there above the base or
    below."""
    random = torch.Generator().manual_seed(1)
    label = "b" if "b" in call.partition("(")[2].replace("base", "") else "a"
    names = [f"x{i}" for i in range(COPIES)]
    models = {
        model: {name: torch.randn(4, 5, generator=random) for name in (*names, "clean")}
        for model in ("base", "a", "b", "c")
    }
    for number, name in enumerate(names):
        models["a"][name][1, 2] = models["base"][name][1, 2] + (-1) ** number
        models[label][name][1, 2] = odd
    made, counted = run(call, models)
    bad = {name: ~tensor.isfinite() for name, tensor in made.items()}
    assert counted == {name: int(mask.sum()) for name, mask in bad.items() if mask.any()}
    if bad.pop("clean").any():
        return "the whole model"
    return max((extent(mask) for mask in bad.values()), key=ORDER.index)


CUT = (
    "consensus(a, b, c, k=2)",
    "consensus(a, b, c, k=3)",
    "clamp_to(a, b, c)",
    "clamp_to(a, b, c, stiffness=1)",
    "add_difference(a, b - c, clamp_to=c)",
    "add_difference(a, b - c, clamp_to=base)",
    "breadcrumbs(a, b, c, density=0.5, gamma=0.2, axis=-1)",
    "sce(a, b, c, select_topk=0.1)",
)
"""More calls that leave out most of what there is."""


@pytest.mark.parametrize("call", [*calls(), *CUT])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_vanishes(call: str, odd: float) -> None:
    """Wherever it is in which model, and whatever a mask, a rank, a bound or an elected sign has
    against it."""
    random = torch.Generator().manual_seed(2)
    used = [m for m in ("a", "b", "c") if m in re.findall(r"\w+", call.partition("(")[2].replace("base", ""))]
    for label in [*used, *(["base"] if reads_base(call) else [])]:
        models = {m: {f"x{i}": torch.randn(4, 5, generator=random) for i in range(20)} for m in ("base", "a", "b", "c")}
        for i in range(20):
            models[label][f"x{i}"].view(-1)[i] = odd
        made, counted = run(call, models)
        assert counted.keys() == models["base"].keys()
        assert all(not math.isfinite(made[f"x{i}"].view(-1)[i]) for i in range(20))


@pytest.mark.parametrize(
    "call",
    [
        "ties(a, density=0.1)",
        "knots(a, density=0.1, exclude=true)",
        "localize_stitch(a, density=0.1)",
        "sce(a, b, select_topk=0.1)",
        "breadcrumbs(a, density=0.1)",
        "breadcrumbs(a, density=0.01)",
        "breadcrumbs_ties(a, density=0.01, gamma=0.5)",
        "breadcrumbs(a, density=0.01, axis=-1)",
        "della(a, density=0.2, epsilon=0.1)",
        "dare_ties(a, density=0.1)",
        "pcb(a, b, ratio=0.01)",
    ],
)
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_more_odd_numbers_than_a_share_keeps_are_all_there(call: str, odd: float) -> None:
    random = torch.Generator().manual_seed(4)
    models = {m: {"x": torch.randn(4, 10, generator=random)} for m in ("base", "a", "b")}
    models["a"]["x"].view(-1)[::2] = odd
    assert not run(call, models)[0]["x"].view(-1)[::2].isfinite().any()


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_an_infinity_is_no_outlier_that_pcb_clamps(scope: str) -> None:
    """Of so many elements the 10⁻⁴ that are largest are more than one."""
    random = torch.Generator().manual_seed(4)
    models = {m: {"x": torch.randn(200, 200, generator=random)} for m in ("base", "a", "b")}
    models["a"]["x"][7, 8] = math.inf
    bad = ~run(f'pcb(a, b, scope="{scope}")', models)[0]["x"].isfinite()
    assert bad.nonzero().tolist() == [[7, 8]]


def reads_base(call: str) -> bool:
    tensors = {"x": ("F32", (4, 5))}
    catalog = mergec.MemoryCatalog({f"./{m}": {"tensors": tensors} for m in ("base", "a", "b", "c")})
    lets = "".join(f'let {m} = model("./{m}")\n' for m in ("base", "a", "b", "c"))
    warnings = mergec.compile(f"{lets}output(like=c)\n* = {call}", catalog=catalog, device="cpu").diagnostics
    return not any(d.code == "W0502" and "base" in d.message for d in warnings)


def extent(bad: torch.Tensor) -> str:
    if not bad.any():
        return "not at all"
    rows, columns = ({int(i) for i in axis} for axis in bad.nonzero(as_tuple=True))
    if rows == {1} and columns == {2}:
        return "that element"
    return "its row" if rows == {1} else "its column" if columns == {2} else "its tensor"


def spreading() -> str:
    """The table: how far a NaN and an infinity go, and the calls of which that is so."""
    found: dict[tuple[str, str], list[str]] = {}
    names = [name for name, options in (SEVERAL | FIXED).items() for _ in options]
    for name, call in zip(names, calls(), strict=True):
        shown = name if len((SEVERAL | FIXED)[name]) == 1 else call.replace("a, b, c, ", "").replace("a, b, c", "")
        found.setdefault((spread(call, math.nan), spread(call, math.inf)), []).append(f"`{shown}`")
    rows = sorted(found.items(), key=lambda item: [ORDER.index(x) for x in item[0]])
    lines = ["| a NaN shows in | an infinity makes NaN or infinite | methods |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| {nan} | {inf} | {', '.join(sorted(which))} |" for (nan, inf), which in rows])


def test_how_far_what_is_not_finite_spreads() -> None:
    page = PAGE.read_text("utf-8")
    before, start, rest = page.partition(START)
    old, end, after = rest.partition(END)
    assert start
    assert end
    new = spreading() + "\n"
    if "UPDATE_DOCS" in os.environ:
        PAGE.write_text(f"{before}{start}{new}{end}{after}", "utf-8")
        return
    assert old == new, "docs/methods.md is behind: UPDATE_DOCS=1 pytest tests/properties/test_edges.py"
