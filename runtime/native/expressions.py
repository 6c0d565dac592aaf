"""The header of the native backend's kernels that are one expression, made of the table of
operations:

    python -m mergec.runtime.native.expressions > runtime/native/expressions.h

A test says when that has to be done again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...compiler.ops.table import OPS, Op

_TYPES = {"v": "float", "m": "uint8_t"}

_FORMS = {"v": ("v",), "m": ("m",), "vv": ("vv", "vn", "nv"), "mm": ("mm",)}
"""By what an operation takes: the forms of its kernel, a letter for every argument."""

_MACROS = {"OF_ONE": ("v", "m"), "OF_TWO": ("vv", "mm"), "OF_FIRST": ("vn",), "OF_SECOND": ("nv",)}
"""The lists of the header, by the forms that are in them."""


def header() -> str:
    """The text of `expressions.h`."""
    parts = [
        "/* Made of compiler/ops/table.py by expressions.py: instruction, type of its arguments, type of its result,",
        "   the result as an expression in x and y, or what is summed of elements of a and b. */",
    ]
    rows = [row for row in OPS.values() if row.c]
    for macro, forms in _MACROS.items():
        lines = [line for row in rows if row.kind == "elementwise" for line in _lines(row, forms)]
        parts += ["", _macro(macro, lines)]
    sums = [f"X({row.name}_{row.takes}, {_of_elements(row.c)})" for row in rows if row.accumulator == "sum"]
    return "\n".join([*parts, "", _macro("SUMS", sums), ""])


def _lines(row: Op, forms: tuple[str, ...]) -> Iterator[str]:
    result = "uint8_t" if row.result == "mask" else "float"
    for form in _FORMS[row.takes]:
        if form in forms:
            yield f"X({row.name}_{form}, {_TYPES[row.takes[0]]}, {result}, {row.c})"


def _of_elements(expression: str) -> str:
    return re.sub(r"\b([xy])\b", lambda found: f"(double){'ab'['xy'.index(found[1])]}[i]", expression)


def _macro(name: str, lines: list[str]) -> str:
    return "\n".join([f"#define {name}(X) \\", *[f"    {line} \\" for line in lines[:-1]], f"    {lines[-1]}"])


if __name__ == "__main__":
    print(header(), end="")
