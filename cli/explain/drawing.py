"""The graph as it is drawn: small enough to look at, with one label per node."""

from __future__ import annotations

from ...compiler.family.folding import fold
from ...compiler.graph.graph import Graph, Output, write_out
from ...compiler.pipeline import Compilation
from ...grammar.records import dataclass

LARGEST = 200
"""With more nodes than this, one output stands for all of its equivalence class."""


@dataclass(frozen=True, slots=True)
class Box:
    """A node of the drawing. `shape` is `input`, `operation` or `output`; `key` is a plain
    identifier."""

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

    Where it is larger than `LARGEST`, of the outputs of one statement that are computed in the same
    way from the same models only the first is drawn, and its label names the others.
    """
    groups = _groups(compilation)
    graph = Graph()
    values = [write_out(graph, group[0]) for group in groups]
    labels = {m.number: m.label for m in reversed(compilation.recipe.inputs)}
    methods: dict[int, str] = {}
    for node, group in zip(values, groups, strict=True):
        methods.setdefault(node.id, _method(compilation, group[0]))
    boxes: list[Box] = []
    edges: list[tuple[str, str]] = []
    for node in graph.nodes:
        if node.op == "const":
            continue
        if node.op == "source":
            place = node.attribute("range")
            shape = list(node.shape or ())
            boxes.append(Box(f"n{node.id}", f"{labels[place.model]}\n{place.stored}\n{place.dtype} {shape}", "input"))
            continue
        given = [f"{i.attribute('value'):g}" if i.op == "const" else "_" for i in node.inputs]
        numbers = f" ({', '.join(given)})" if any(g != "_" for g in given) else ""
        boxes.append(Box(f"n{node.id}", methods.get(node.id, "") + node.op + numbers, "operation"))
        edges.extend((f"n{i.id}", f"n{node.id}") for i in node.inputs if i.op != "const")
    for k, (node, group) in enumerate(zip(values, groups, strict=True)):
        first = group[0]
        names = fold([o.name for o in group], compilation.elaboration.space)
        more = f"\n… {len(names) - 3} more" if len(names) > 3 else ""
        boxes.append(Box(f"o{k}", "\n".join(names[:3]) + more + f"\n{first.dtype} {list(first.shape)}", "output"))
        edges.append((f"n{node.id}", f"o{k}"))
    return Drawing(tuple(boxes), tuple(edges))


def _method(compilation: Compilation, output: Output) -> str:
    """`ties: ` before the operation that is a statement's result, from the function that it
    calls."""
    if output.statement is None:
        return ""
    text = compilation.recipe.assignments[output.statement].statement.value.span.text
    head = text.partition("(")[0].strip()
    return f"{head}: " if head.isidentifier() and "(" in text else ""


def _groups(compilation: Compilation) -> list[list[Output]]:
    """Outputs drawn as one: each by itself in a small graph; else those of one statement that are
    computed in the same way."""
    outputs = compilation.graph.outputs
    if len(outputs) <= LARGEST and len(compilation.graph.written_out().nodes) <= LARGEST:
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
