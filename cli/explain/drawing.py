"""The graph as it is drawn: small enough to look at, with a label a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...compiler.coverage import fold
from ...compiler.graph import Output
from ...compiler.pipeline import Compilation

LARGEST = 200
"""With more nodes than this, one output stands for all that are computed alike."""


@dataclass(frozen=True, slots=True)
class Box:
    """A node of the drawing. `shape` is `input`, `operation` or `output`; `key` is a plain identifier."""

    key: str
    label: str
    shape: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes, and edges between their keys."""

    boxes: tuple[Box, ...]
    edges: tuple[tuple[str, str], ...]


def draw(compilation: Compilation) -> Drawing:
    """The graph of a compilation, inputs before users; constants are parts of labels.

    Where it is larger than `LARGEST`, of the outputs of one statement that are computed in the same way from the
    same models only the first is drawn, and its label names the others.
    """
    whole = compilation.graph.digraph()
    groups = _groups(compilation, whole)
    kept = whole.subgraph(_needed(whole, [group[0].node.id for group in groups]))
    labels = {m.number: m.label for m in reversed(compilation.recipe.inputs)}
    boxes: list[Box] = []
    edges: list[tuple[str, str]] = []
    for number in sorted(kept.nodes):
        node = kept.nodes[number]["node"]
        if node.op == "const":
            continue
        if node.op == "source":
            place = node.attribute("range")
            boxes.append(
                Box(f"n{number}", f"{labels[place.model]}\n{place.stored}\n{place.dtype} {list(node.shape)}", "input")
            )
            continue
        given = [f"{i.attribute('value'):g}" if i.op == "const" else "_" for i in node.inputs]
        numbers = f" ({', '.join(given)})" if any(g != "_" for g in given) else ""
        boxes.append(Box(f"n{number}", _statement_of(compilation, groups, number) + node.op + numbers, "operation"))
        edges.extend((f"n{i.id}", f"n{number}") for i in node.inputs if i.op != "const")
    for k, group in enumerate(groups):
        first = group[0]
        names = fold([o.name for o in group], compilation.elaboration.space)
        more = f"\n… {len(names) - 3} more" if len(names) > 3 else ""
        boxes.append(Box(f"o{k}", "\n".join(names[:3]) + more + f"\n{first.dtype} {list(first.shape)}", "output"))
        edges.append((f"n{first.node.id}", f"o{k}"))
    return Drawing(tuple(boxes), tuple(edges))


def _needed(whole: Any, roots: list[int]) -> set[int]:
    """The nodes and all that they are computed from; `whole` is a networkx digraph."""
    found, todo = set(roots), list(roots)
    while todo:
        for source in whole.predecessors(todo.pop()):
            if source not in found:
                found.add(source)
                todo.append(source)
    return found


def _statement_of(compilation: Compilation, groups: list[list[Output]], number: int) -> str:
    """`ties: ` before the operation that is a statement's result, from the function that it calls."""
    for group in groups:
        first = group[0]
        if first.node.id == number and first.statement is not None:
            text = compilation.recipe.assignments[first.statement].statement.value.span.text
            head = text.partition("(")[0].strip()
            return f"{head}: " if head.isidentifier() and "(" in text else ""
    return ""


def _groups(compilation: Compilation, whole: Any) -> list[list[Output]]:
    """Outputs drawn as one: each by itself in a small graph; else those of one statement and one way of computing."""
    outputs = compilation.graph.outputs
    if whole.number_of_nodes() <= LARGEST:
        return [[o] for o in outputs]
    ways: dict[int, int] = {}
    known: dict[tuple[object, ...], int] = {}
    for node in compilation.graph.live():
        if node.op == "source":
            way: tuple[object, ...] = ("source", node.attribute("range").model)
        elif node.op == "const":
            way = ("const",)
        else:
            way = (node.op, *[ways[i.id] for i in node.inputs])
        ways[node.id] = known.setdefault(way, len(known))
    found: dict[tuple[object, ...], list[Output]] = {}
    for output in outputs:
        found.setdefault((output.statement, ways[output.node.id], output.dtype), []).append(output)
    return list(found.values())
