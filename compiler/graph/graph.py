"""The tensor graph: hash-consed nodes, each built only through the graph.

A node is an operation on earlier nodes. Equal operation, attributes and inputs give the same node,
so what is shared in the recipe (tied places, repeated subexpressions) is computed once. Nodes are
numbered as they are made, inputs before users, so the order of `Graph.nodes` is topological.

A checkpoint of a hundred thousand tensors has few hundred kinds of them. Output tensors that are
computed alike, each from tensors of its own, share the nodes of one of them, and each says what it
reads instead (`Output.reads`). `written_out` is the graph with nodes for every output, as people
see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from ...grammar.records import dataclass
from ...grammar.source import Span
from ..checkpoint.layouts import View
from ..ops.table import OPS
from .masks import mask_key

Attribute = tuple[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One value.

    `kind` is `tensor` or `mask` (with a shape) or `number` or `threshold` (one per tensor; shape is
    None). Leaves are `source` (a range of a stored tensor), `gather` (rows of several) and `const`;
    `part` is a range of what an operation on whole tensors gave, `low_rank` the product of two
    matrices, multiplied block by block.
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
    """Elements `[first, first + numel)` of a stored tensor, seen with a shape: what a `source` node
    reads."""

    model: int
    stored: str
    dtype: str
    first: int


@dataclass(frozen=True, slots=True, eq=False)
class EquivalenceClass:
    """What outputs that are computed alike have in common beside the nodes, which are those of one
    of them.

    `sources` are the ranges that those nodes read; in another output its `reads` stand in their
    places, in the same order, with the same models, dtypes and shapes. `masks` gives for each
    random key among those nodes the model name and stream that it is made of (`masks.py`), and
    `seed` the rest of it beside the output's name.
    """

    sources: tuple[StoredRange, ...]
    masks: Mapping[int, tuple[str, str]]
    seed: int

    def range(self, slot: int, view: View) -> StoredRange:
        """What is read in place of `sources[slot]`."""
        source = self.sources[slot]
        return StoredRange(source.model, view.stored, source.dtype, view.first)

    def key(self, key: int, output: str) -> int:
        """The random key in place of `key` in the output of that name."""
        model, stream = self.masks[key]
        return mask_key(self.seed, output, model, stream)


@dataclass(frozen=True, slots=True)
class Output:
    """A canonical tensor of the output: the node that is its value and the dtype that it is rounded
    to.

    `statement` is the number of the statement that gave the value, or None for a copy from the
    template. With an `equivalence` the value is that of `node` with `reads` as its sources.
    """

    name: str
    node: Node
    dtype: str
    shape: tuple[int, ...]
    statement: int | None
    span: Span | None
    equivalence: EquivalenceClass | None = None
    reads: tuple[View, ...] = ()

    def of(self, node: Node) -> Output:
        """The same output with its value in another graph."""
        return Output(self.name, node, self.dtype, self.shape, self.statement, self.span, self.equivalence, self.reads)


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
        # a constant first, whether another output has made it before or not
        if row is not None and row.commutes and _rank(inputs[0]) > _rank(inputs[1]):
            inputs = (inputs[1], inputs[0])
        key = (op, tuple([n.id for n in inputs]), attributes, shape)
        found = self._known.get(key)
        if found is None:
            found = Node(len(self.nodes), op, inputs, attributes, kind, shape)
            self.nodes.append(found)
            self._known[key] = found
        return found

    def source(self, place: StoredRange, shape: tuple[int, ...]) -> Node:
        """What is read of a stored tensor, seen with a shape."""
        return self.add("source", (), (("range", place),), "tensor", shape)

    def const(self, value: float) -> Node:
        # repr keeps -0.0 and 0.0 (and 1 and True) apart, which equality would not
        return self.add("const", (), (("value", float(value)), ("text", repr(float(value)))), "number")

    def apply(self, op: str, inputs: tuple[Node, ...], attributes: tuple[Attribute, ...] = ()) -> Node:
        """An operation of `ops.OPS`; kind and shape of the result follow from the inputs.

        The tensors among the inputs of an elementwise operation have equal shapes (checked by the
        caller, who can say where they came from).
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
        """The nodes that an output needs, in topological order; of outputs that share theirs, these
        alone."""
        needed = bytearray(len(self.nodes))
        for output in self.outputs:
            needed[output.node.id] = 1
        for node in reversed(self.nodes):
            if needed[node.id]:
                for source in node.inputs:
                    needed[source.id] = 1
        return [n for n in self.nodes if needed[n.id]]

    def written_out(self) -> Graph:
        """The graph in which every output has nodes of its own, less those that no output needs.

        It has as many nodes as the recipe means, up to millions; to look at one output, see
        `value_of`.
        """
        out = Graph()
        made = copied(out, below(o.node for o in self.outputs if o.equivalence is None))
        for output in self.outputs:
            node = made[output.node.id] if output.equivalence is None else write_out(out, output)
            out.outputs.append(Output(output.name, node, output.dtype, output.shape, output.statement, output.span))
        return out


def _rank(node: Node) -> tuple[bool, int]:
    return node.op != "const", node.id


def below(roots: Iterable[Node]) -> list[Node]:
    """The nodes and all that they need, in topological order."""
    found = {node.id: node for node in roots}
    todo = list(found.values())
    while todo:
        for source in todo.pop().inputs:
            if source.id not in found:
                found[source.id] = source
                todo.append(source)
    return [found[k] for k in sorted(found)]


def value_of(output: Output) -> Node:
    """An output's value in nodes of its own, in a graph of its own where it shares them with
    outputs like it."""
    return output.node if output.equivalence is None else write_out(Graph(), output)


def write_out(graph: Graph, output: Output) -> Node:
    """Adds an output's value to a graph, with its own sources and random keys; gives its node
    there."""
    like = output.equivalence
    nodes = below([output.node])
    if like is None:
        return copied(graph, nodes)[output.node.id]
    slots = {source: k for k, source in enumerate(like.sources)}
    made: dict[int, Node] = {}
    for node in nodes:
        attributes = node.attributes
        if node.op == "source":
            slot = slots[node.attribute("range")]
            attributes = (("range", like.range(slot, output.reads[slot])),)
        elif node.op == "bernoulli":
            attributes = (("key", like.key(node.attribute("key"), output.name)),)
        inputs = tuple([made[i.id] for i in node.inputs])
        made[node.id] = graph.add(node.op, inputs, attributes, node.kind, node.shape)
    return made[output.node.id]


def copied(graph: Graph, nodes: Iterable[Node]) -> dict[int, Node]:
    """The nodes in another graph, by their numbers here; inputs come before users."""
    made: dict[int, Node] = {}
    for node in nodes:
        inputs = tuple([made[i.id] for i in node.inputs])
        made[node.id] = graph.add(node.op, inputs, node.attributes, node.kind, node.shape)
    return made
