"""Removes arithmetic that changes nothing.

    add(x, 0) -> x          mul(x, 1) -> x         where(1, x, y) -> x
    sub(x, x) -> 0          mul(x, 0) -> 0         where(c, x, x) -> x
    const op const -> const      dot(x, 0) -> 0

Dropping a term of weight 0 also drops its reads, and any NaN or infinity in it. Where `0 * x` would
have been -0, it is 0. All else is as it was, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ...ops.table import OPS, SCALARS
from ..graph import Graph, Node, below, copied

Rule = Callable[[Graph, tuple[Node, ...]], Node | None]


def simplify(graph: Graph) -> Graph:
    """The same outputs from fewer nodes; nodes that no output needs are left behind.

    >>> from mergec.compiler.graph.graph import Output
    >>> g = Graph()
    >>> a = g.add("source", (), (("range", "a"),), "tensor", (2,))
    >>> value = g.apply("add", (g.apply("mul", (a, g.const(1))), g.const(0)))
    >>> g.outputs.append(Output("x", value, "F32", (2,), 0, None))
    >>> simplify(g).nodes
    [%0 = source(range='a')]
    """
    out = Graph()
    new: dict[int, Node] = {}
    for node in graph.live():
        new[node.id] = _rebuild(out, node, tuple([new[i.id] for i in node.inputs]))
    values: dict[int, Node] = {}
    for o in graph.outputs:
        value = new[o.node.id]
        values[o.node.id] = value if value.shape is not None else out.add("fill", (value,), (), "tensor", o.shape)
    return _with_outputs(graph, values)


def _with_outputs(graph: Graph, values: Mapping[int, Node]) -> Graph:
    """A graph with the same outputs, their values being these nodes of another; those not needed
    are left behind."""
    out = Graph()
    new = copied(out, below(values.values()))
    # what reads nothing is one value, whichever outputs have it
    reads: set[int] = set()
    for node in out.nodes:
        if node.op in ("source", "bernoulli") or any(i.id in reads for i in node.inputs):
            reads.add(node.id)
    for o in graph.outputs:
        value = new[values[o.node.id].id]
        out.outputs.append(o.of(value) if value.id in reads else replace(o, node=value, equivalence=None, reads=()))
    return out


def _rebuild(graph: Graph, node: Node, inputs: tuple[Node, ...]) -> Node:
    row, rule = OPS.get(node.op), RULES.get(node.op)
    if inputs and node.op in FOLDED and all(n.op == "const" for n in inputs):
        value = SCALARS[node.op](*[n.attribute("value") for n in inputs])
        return graph.const(float(value))
    found = rule(graph, inputs) if rule is not None else None
    if found is not None:
        return found
    if row is not None and row.zero and any(_is(i, 0) for i in inputs):
        return graph.const(0.0)
    if row is not None and row.unit is not None:
        if row.commutes and _is(inputs[0], row.unit):
            return inputs[1]
        if _is(inputs[1], row.unit):
            return inputs[0]
    if row is not None and node.op not in FOLDED and row.takes != "n":
        inputs = tuple([_filled(graph, old, new) for old, new in zip(node.inputs, inputs, strict=True)])
    return graph.add(node.op, inputs, node.attributes, node.kind, node.shape if _has_shape(node, inputs) else None)


def _filled(graph: Graph, old: Node, new: Node) -> Node:
    """A tensor that became a number, as a tensor again: for operations that have to look at all its
    elements."""
    if old.shape is None or new.shape is not None:
        return new
    filled = graph.add("fill", (new,), (), "tensor", old.shape)
    return graph.apply("ne", (filled, graph.const(0.0))) if old.kind == "mask" else filled


def _has_shape(node: Node, inputs: tuple[Node, ...]) -> bool:
    """An elementwise operation whose tensors all became numbers is a number itself."""
    return node.op not in FOLDED or any(n.shape is not None for n in inputs)


def _is(node: Node, value: float) -> bool:
    return node.op == "const" and node.attribute("value") == value


def _sub(graph: Graph, inputs: tuple[Node, ...]) -> Node | None:
    return graph.const(0.0) if inputs[0] is inputs[1] else None


def _where(graph: Graph, inputs: tuple[Node, ...]) -> Node | None:  # noqa: ARG001
    condition, then, other = inputs
    if condition.op == "const":
        return then if condition.attribute("value") else other
    return then if then is other else None


def _and(graph: Graph, inputs: tuple[Node, ...]) -> Node | None:
    a, b = inputs
    for one, other in ((a, b), (b, a)):
        if one.op == "const":
            return other if one.attribute("value") else graph.const(0.0)
    return a if a is b else None


def _number(graph: Graph, inputs: tuple[Node, ...]) -> Node | None:  # noqa: ARG001
    return inputs[0] if inputs[0].kind == "number" else None


def _above(graph: Graph, inputs: tuple[Node, ...]) -> Node | None:
    threshold = inputs[1]
    none = threshold.op == "threshold_at" and threshold.inputs[1].op == "const"
    return graph.const(0.0) if none and threshold.inputs[1].attribute("value") < 1 else None


RULES: Mapping[str, Rule] = {
    "sub": _sub,
    "where": _where,
    "and": _and,
    "number": _number,
    "above": _above,
}
"""What is beyond the table's `zero` and `unit`."""

FOLDED = frozenset(SCALARS) - {"fill"}
"""Operations that are numbers where all their inputs are."""
