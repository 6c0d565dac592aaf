"""`--emit`: the compiler's stages as text, for people who work on it and for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ...compiler.pipeline import Compilation
from ...compiler.plan.plan import Copy, Pass
from ...grammar.source import Span
from ...runtime.api import parse


def emit(compilation: Compilation, stage: str) -> str:
    """The graph (one numbered node per line) or the schedule (one step per line) of a
    compilation."""
    if stage == "graph":
        graph = compilation.graph.written_out()
        nodes = [repr(node) for node in graph.nodes]
        outputs = [f"{o.name}: {o.dtype} {list(o.shape)} = %{o.node.id}" for o in graph.outputs]
        return "\n".join([*nodes, *outputs])
    return "\n".join(_step(k, step) for k, step in enumerate(compilation.plan.steps))


def _step(number: int, step: Any) -> str:
    action = step.action
    what = type(action).__name__.lower()
    if isinstance(action, Pass):
        what += f" {action.numel} elements, {len(action.code)} operations"
        if action.reductions:
            what += ", reduces " + " ".join(r.op for r in action.reductions)
    elif isinstance(action, Copy):
        what += f" {sum(e.nbytes for e in action.extents)} bytes"
    return f"{number}: tensor {step.tensor}: {what}; host {step.host}, device {step.device}"


def emit_syntax(recipe: str | Path) -> str:
    """The syntax tree of a recipe, indented."""
    return "\n".join(_lines(parse(recipe).statements, 0))


def _lines(node: Any, depth: int) -> list[str]:
    pad = "  " * depth
    if isinstance(node, tuple):
        return [line for item in node for line in _lines(item, depth)]
    if not dataclasses.is_dataclass(node):
        return [f"{pad}{node!r}"]
    simple: list[tuple[str, Any]] = []
    nested: list[tuple[str, Any]] = []
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if isinstance(value, Span) or value is None or value == ():
            continue
        (nested if dataclasses.is_dataclass(value) or isinstance(value, tuple) else simple).append((field.name, value))
    lines = [pad + type(node).__name__ + "".join(f" {k}={v!r}" for k, v in simple)]
    for _, value in nested:
        lines.extend(_lines(value, depth + 1))
    return lines
