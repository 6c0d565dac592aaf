"""What depends on what, from stored tensors to outputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .graph import EquivalenceClass, Graph, StoredRange, below

if TYPE_CHECKING:
    import networkx as nx

StoredName = tuple[int, str]
"""A stored tensor: the number of its model, and its name there."""


def digraph(graph: Graph) -> nx.DiGraph:
    """The graph for networkx: edges lead from stored tensors over nodes, by number, to outputs, by
    name.

    Nothing is written out: an output with an `equivalence` hangs on the tensors that it reads.
    """
    # a tenth of a second, which few runs have a use for
    import networkx

    made = networkx.DiGraph()
    for node in below(o.node for o in graph.outputs if o.equivalence is None):
        made.add_edges_from((i.id, node.id) for i in node.inputs)
        if node.op == "source":
            place: StoredRange = node.attribute("range")
            made.add_edge((place.model, place.stored), node.id)
    slots: dict[tuple[int, EquivalenceClass], list[tuple[int, int]]] = {}
    for output in graph.outputs:
        like, node = output.equivalence, output.node
        if like is None:
            made.add_edge(node.id, output.name)
            continue
        if (node.id, like) not in slots:
            # a pass may have done away with what some of them were read for
            used = {n.attribute("range") for n in below([node]) if n.op == "source"}
            slots[node.id, like] = [(k, source.model) for k, source in enumerate(like.sources) if source in used]
        made.add_edges_from(((model, output.reads[k].stored), output.name) for k, model in slots[node.id, like])
    return made


def dependents(graph: Graph, tensors: Iterable[StoredName]) -> tuple[set[StoredName], set[str]]:
    """Those of the tensors that any output depends on, and the outputs that depend on them, by
    name."""
    import networkx

    made = digraph(graph)
    read = {tensor for tensor in tensors if tensor in made}
    # one walk from all of them: behind a number of a whole model lie all outputs, and each would
    # reach them again
    together = object()
    made.add_node(together)
    made.add_edges_from((together, tensor) for tensor in read)
    return read, {name for name in networkx.descendants(made, together) if isinstance(name, str)}
