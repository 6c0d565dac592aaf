"""What a graph must satisfy between passes; a violation is a bug in mergec, not a user's
mistake."""

from __future__ import annotations

from ..ops.table import OPS
from .graph import Graph, Node, below

LEAVES = {"source": 0, "gather": None, "const": 0, "part": 1, "low_rank": 2}
"""Forms beyond `OPS` and how many inputs they have (None: any)."""


class BrokenGraph(AssertionError):
    """An invariant of the graph does not hold."""


def verify(graph: Graph) -> Graph:
    """The graph itself, after checking forms, kinds, shapes and order. Raises BrokenGraph."""
    seen: set[int] = set()
    keys: set[tuple[object, ...]] = set()
    for number, node in enumerate(graph.nodes):
        _expect(node.id == number, node, "is out of order")
        _expect(all(i.id in seen for i in node.inputs), node, "uses a later node")
        _expect(node.op in OPS or node.op in LEAVES, node, "is no known operation")
        _form(node)
        key = (node.op, tuple(i.id for i in node.inputs), node.attributes, node.shape)
        _expect(key not in keys, node, "exists twice")
        keys.add(key)
        seen.add(node.id)
    names = [o.name for o in graph.outputs]
    if len(set(names)) != len(names):
        raise BrokenGraph("an output tensor has two values")
    for output in graph.outputs:
        _expect(output.node.id in seen, output.node, "is not of this graph")
        _expect(
            output.node.shape is None or output.node.shape == output.shape, output.node, "has not its output's shape"
        )
    for node in below(o.node for o in graph.outputs if o.equivalence is not None):
        row = OPS.get(node.op)
        _expect(row is None or not row.whole_model, node, "is of the whole model, and outputs that are alike share it")
    return graph


def _form(node: Node) -> None:
    row = OPS.get(node.op)
    arity = row.arity if row else LEAVES[node.op]
    _expect(arity in (None, -1) or len(node.inputs) == arity, node, "has the wrong number of inputs")
    shapes = {i.shape for i in node.inputs if i.shape is not None}
    if row is None:
        if node.op == "part":
            _expect(node.inputs[0].op in OPS and OPS[node.inputs[0].op].kind == "opaque", node, "is of no whole tensor")
        return
    if row.kind == "elementwise" and row.takes != "n":
        _expect(len(shapes) <= 1, node, "combines different shapes")
        _expect(node.shape == next(iter(shapes), None), node, "has not its inputs' shape")
    if row.kind == "opaque":
        _expect(node.shape is not None and bool(shapes), node, "is an opaque operation on no tensor")
        _expect(all(i.kind in ("tensor", "number") for i in node.inputs), node, "takes a mask or a threshold")
        axes = {len(i.shape) for i in node.inputs if i.shape is not None}
        _expect(row.axes is None or axes == {row.axes}, node, "has inputs of the wrong number of axes")
    if row.kind == "reduction":
        _expect(node.shape is None and len(shapes) == 1, node, "reduces no tensor to no number")
    if row.kind == "scalar":
        _expect(not shapes, node, "computes with a tensor as with a number")
    if row.numbers:
        _expect(all(i.shape is None for i in node.inputs[-len(row.numbers) :]), node, "takes a tensor for a number")
    for name in row.attributes:
        _expect(any(k == name for k, _ in node.attributes), node, f"lacks `{name}`")


def _expect(holds: bool, node: Node, what: str) -> None:
    if not holds:
        raise BrokenGraph(f"{node!r} {what}")
