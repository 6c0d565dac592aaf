"""The graph in Mermaid's language, which Markdown viewers draw."""

from __future__ import annotations

from ...compiler.pipeline import Compilation
from ...grammar.render import escape
from .drawing import draw

_SHAPES = {"input": ('["', '"]'), "operation": ('("', '")'), "output": ('[["', '"]]')}


def explain_mermaid(compilation: Compilation) -> str:
    """The graph as a flowchart from left to right."""
    drawing = draw(compilation)
    lines = ["flowchart LR"]
    for box in drawing.boxes:
        left, right = _SHAPES[box.shape]
        lines.append(f"  {box.key}{left}{_quoted(box.label)}{right}")
    lines += [f"  {start} --> {end}" for start, end in drawing.edges]
    return "\n".join(lines) + "\n"


def _quoted(label: str) -> str:
    """A label inside quotes: everything that Mermaid or HTML would read as more than text becomes
    an entity."""
    lines = []
    for line in label.split("\n"):
        plain = (c if c.isalnum() or c in " ._-,:()/=+" else f"#{ord(c)};" for c in escape(line))
        lines.append("".join(plain))
    return "<br/>".join(lines)
