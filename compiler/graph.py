"""The tensor graph: hash-consed nodes, each built only through the graph.

A node is an operation on earlier nodes. Equal operation, attributes and inputs give the same node, so what is shared
in the recipe (tied places, repeated subexpressions) is computed once. Nodes are numbered as they are made, inputs
before users, so the order of `Graph.nodes` is topological. `Graph.digraph` is the same graph for networkx.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..grammar.source import Span
from .ops import OPS

if TYPE_CHECKING:
    import networkx as nx

Attribute = tuple[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One value.

    `kind` is `tensor` or `mask` (with a shape) or `number` or `threshold` (one a tensor; shape is None).
    Leaves are `source` (a range of a stored tensor), `gather` (rows of several) and `const`; `part` is a range of
    what an operation on whole tensors gave, `low_rank` the product of two matrices, multiplied block by block.
    """

    id: int
    op: str
    inputs: tuple[Node, ...]
    attributes: tuple[Attribute, ...]
    kind: str
    shape: tuple[int, ...] | None

    def attribute(self, name: str) -> Any:
        return dict(self.attributes)[name]

    def __repr__(self) -> str:
        inside = ", ".join([f"%{n.id}" for n in self.inputs] + [f"{k}={v!r}" for k, v in self.attributes])
        return f"%{self.id} = {self.op}({inside})"


@dataclass(frozen=True, slots=True)
class StoredRange:
    """Elements `[first, first + numel)` of a stored tensor, seen with a shape: what a `source` node reads."""

    model: int
    stored: str
    dtype: str
    first: int


@dataclass(frozen=True, slots=True)
class Output:
    """A canonical tensor of the output: the node that is its value and the dtype that it is rounded to.

    `statement` is the number of the statement that gave the value, or None for a copy from the template.
    """

    name: str
    node: Node
    dtype: str
    shape: tuple[int, ...]
    statement: int | None
    span: Span | None


@dataclass(slots=True)
class Graph:
    """All nodes by number, and the outputs. Grows only through `add` and its companions."""

    nodes: list[Node] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    _known: dict[tuple[Any, ...], Node] = field(default_factory=dict)

    def add(
        self,
        op: str,
        inputs: tuple[Node, ...] = (),
        attributes: tuple[Attribute, ...] = (),
        kind: str = "tensor",
        shape: tuple[int, ...] | None = None,
    ) -> Node:
        """The node of this operation: the one that exists, or a new one."""
        row = OPS.get(op)
        if row is not None and row.commutes and inputs[0].id > inputs[1].id:
            inputs = (inputs[1], inputs[0])
        key = (op, tuple([n.id for n in inputs]), attributes, shape)
        found = self._known.get(key)
        if found is None:
            found = Node(len(self.nodes), op, inputs, attributes, kind, shape)
            self.nodes.append(found)
            self._known[key] = found
        return found

    def const(self, value: float) -> Node:
        # repr keeps -0.0 and 0.0 (and 1 and True) apart, which equality would not
        return self.add("const", (), (("value", float(value)), ("text", repr(float(value)))), "number")

    def apply(self, op: str, inputs: tuple[Node, ...], attributes: tuple[Attribute, ...] = ()) -> Node:
        """An operation of `ops.OPS`; kind and shape of the result follow from the inputs.

        The tensors among the inputs of an elementwise operation have equal shapes (checked by the caller, who can say
        where they came from).
        """
        row = OPS[op]
        if row.kind == "reduction":
            return self.add(op, inputs, attributes, row.result, None)
        shape = next((n.shape for n in inputs if n.shape is not None), None)
        if shape is None:
            return self.add(op, inputs, attributes, "number", None)
        if row.kind == "opaque":
            made = row.shape([n.shape for n in inputs if n.shape is not None]) if row.shape else shape
            return self.add(op, inputs, attributes, "tensor", made)
        return self.add(op, inputs, attributes, "mask" if row.result == "mask" else "tensor", shape)

    def live(self) -> list[Node]:
        """The nodes that an output needs, in topological order."""
        needed = bytearray(len(self.nodes))
        for output in self.outputs:
            needed[output.node.id] = 1
        for node in reversed(self.nodes):
            if needed[node.id]:
                for source in node.inputs:
                    needed[source.id] = 1
        return [n for n in self.nodes if needed[n.id]]

    def digraph(self) -> nx.DiGraph:
        """The live nodes as a networkx graph: edges from inputs to users, `node` and `outputs` as attributes."""
        import networkx

        graph = networkx.DiGraph()
        for node in self.live():
            graph.add_node(node.id, node=node, outputs=[])
            graph.add_edges_from((source.id, node.id) for source in node.inputs)
        for output in self.outputs:
            graph.nodes[output.node.id]["outputs"].append(output.name)
        return graph
