"""The graph in Graphviz's language."""

from __future__ import annotations

from ...compiler.pipeline import Compilation
from ...grammar.render import escape
from .drawing import draw

_SHAPES = {"input": "box", "operation": "ellipse", "output": "box, style=rounded"}


def explain_dot(compilation: Compilation) -> str:
    """The graph as a `digraph`, for `dot -Tsvg`."""
    drawing = draw(compilation)
    lines = ["digraph merge {", "  rankdir=LR;", '  node [fontname="sans-serif", fontsize=10];']
    lines += [f"  {b.key} [label={_quoted(b.label)}, shape={_SHAPES[b.shape]}];" for b in drawing.boxes]
    lines += [f"  {start} -> {end};" for start, end in drawing.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(label: str) -> str:
    """A label as a string of Graphviz: lines centred, quotes and backslashes escaped."""
    lines = [escape(line).replace("\\", "\\\\").replace('"', '\\"') for line in label.split("\n")]
    return '"' + "\\n".join(lines) + '"'
