"""The table of operations is complete, and it is where an operation is told: what each is to either
backend follows from its row, or stands where this test looks for it."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import torch
from compiled import skip_without_a_compiler
from mergec.compiler.evaluate.builtins import BUILTINS
from mergec.compiler.ops.table import OPS, SCALARS
from mergec.runtime.native import expressions, select
from mergec.runtime.native.library import kernels
from mergec.runtime.portable.elementwise import ELEMENTWISE
from mergec.runtime.portable.opaque import OPAQUE
from mergec.runtime.portable.reduce import FEEDS
from mergec.runtime.reduce.reducers import REDUCERS

ROOT = Path(__file__).resolve().parents[2]
KINDS = {kind: {o.name for o in OPS.values() if o.kind == kind} for kind in ("elementwise", "reduction", "opaque")}
BEYOND_NATIVE = {"installed"}
"""Elementwise operations of the portable backend alone."""
BEYOND_NUMBERS = {"above", "bernoulli", "row_sum", "row_max", "row_rank", "installed"}
"""Elementwise operations that look at more than an element: they mean nothing on plain numbers."""


def test_the_portable_backend_has_a_kernel_for_each() -> None:
    assert ELEMENTWISE.keys() == KINDS["elementwise"], "runtime/portable/elementwise.py, or `array` in the table"
    assert FEEDS.keys() == REDUCERS.keys() == KINDS["reduction"], (
        "runtime/portable/reduce.py, runtime/reduce/reducers.py"
    )
    assert OPAQUE.keys() == KINDS["opaque"], "runtime/portable/opaque.py"
    assert all(hasattr(torch, row.array) for row in OPS.values() if row.array)


def test_the_native_backend_has_an_instruction_for_each() -> None:
    skip_without_a_compiler()
    found = kernels()
    assert found is not None
    named = {name.rpartition("_")[0] for name in found.instructions}
    assert KINDS["elementwise"] - named == BEYOND_NATIVE, (
        "runtime/native/body.h and instructions.h, or `c` in the table"
    )
    needed = {name for names in select.REDUCTIONS.values() for name in names}
    assert not needed - found.instructions.keys(), "runtime/native/body.h and instructions.h, or `c` in the table"


def test_each_means_something_on_plain_numbers() -> None:
    wanted = KINDS["elementwise"] - BEYOND_NUMBERS | {o.name for o in OPS.values() if o.kind == "scalar"}
    assert SCALARS.keys() == wanted, "`scalar` in compiler/ops/table.py"


def test_rows_say_what_their_kind_needs() -> None:
    for row in OPS.values():
        assert bool(row.accumulator) == (row.kind == "reduction"), row.name
        assert set(row.takes) <= set("vmtn") or row.takes == "*", row.name
        assert row.takes == "*" or row.takes.count("n") >= len(row.numbers), row.name
        # what is an expression to one backend is a function to the other
        assert not row.c or row.array or row.takes in ("m", "v"), row.name
        assert not row.commutes or row.arity == 2, row.name


def test_the_header_of_expressions_is_that_of_the_table() -> None:
    """After a change of the table: `python -m mergec.runtime.native.expressions >
    runtime/native/expressions.h`."""
    assert (ROOT / "runtime" / "native" / "expressions.h").read_text("utf-8") == expressions.header()


def test_a_changed_header_makes_the_kernels_anew() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (kernels_,) = project["tool"]["setuptools"]["ext-modules"]
    assert set(kernels_["depends"]) == {f"runtime/native/{p.name}" for p in (ROOT / "runtime" / "native").glob("*.h")}


SOURCES = [
    path
    for folder in ("compiler", "runtime")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".c", ".h") and path.name != "expressions.h"
]
PLAIN = ["abs", "sign", "exp", "log", "tanh", "acos", "trunc"]
REDUCTIONS = ["dot", "maximum"]


def places(op: str) -> set[str]:
    """The files in which an operation is spelled: as a name, or as a part of the name of an
    instruction or function."""
    python = re.compile(rf'"{op}"')
    c = re.compile(rf"\b{op}_(of|of_any|v|vv|m|mm|vn|nv)\b")
    found = set()
    for path in SOURCES:
        if (python if path.suffix == ".py" else c).search(path.read_text("utf-8")):
            found.add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(("op", "most"), [*((op, 3) for op in PLAIN), *((op, 4) for op in REDUCTIONS)])
def test_an_operation_is_written_in_few_places(op: str, most: int) -> None:
    """Its row, how recipes reach it, and what it takes that is no expression."""
    found = places(op)
    assert "compiler/ops/table.py" in found
    assert len(found) <= most, found


def test_builtins_name_operations_of_the_table() -> None:
    """`test_keys.py` sees that recipes reach every operation; here, that none is offered by a name
    it hasn't."""
    elsewhere = {"quantile", "numel", "row_length", "ndim", "topk_mask", "rank_mask", "model_threshold"}
    text = (ROOT / "compiler" / "evaluate" / "builtins.py").read_text("utf-8")
    named = set()
    for call in ast.walk(ast.parse(text)):
        made_by = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
        if made_by in ("_unary", "_tensor", "_whole", "_fold") and isinstance(call.args[0], ast.Constant):
            op = next((k.value for k in call.keywords if k.arg == "op"), call.args[made_by == "_fold"])
            named.add(op.value)
    assert named - OPS.keys() == elsewhere
    assert {"abs", "total", "singular_merge"} <= BUILTINS.keys()
