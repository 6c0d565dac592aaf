"""Where passes have to end: at nodes whose value is known only after every block of their inputs
was seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..graph.graph import Node
from ..ops.shapes import elements
from ..ops.table import OPS


def is_barrier(node: Node) -> bool:
    """Whether a pass must end before the node's value is known."""
    return node.op == "low_rank" or (node.op in OPS and OPS[node.op].kind in ("reduction", "opaque"))


def barrier_levels(nodes: Iterable[Node]) -> dict[int, int]:
    """How many barriers lie one above the other up to each node, itself among them; inputs come
    before users."""
    level: dict[int, int] = {}
    for node in nodes:
        level[node.id] = max((level[i.id] for i in node.inputs), default=0) + is_barrier(node)
    return level


def blocks_below(node: Node) -> dict[int, Node]:
    """What a block of the node's value is computed from: all below it, but not beyond numbers, nor
    factors of products."""
    found = {node.id: node}
    todo = [node]
    while todo:
        below = todo.pop()
        for source in below.inputs if below.op != "low_rank" else ():
            if source.shape is not None and source.id not in found:
                found[source.id] = source
                todo.append(source)
    return found


COSTLY = frozenset(name for name, row in OPS.items() if row.costly)
"""Operations that take longer than all others together."""


def costly_masks(root: Node, barriers: Iterable[Node]) -> list[Node]:
    """The masks that take a costly operation and are needed more than once: for a block of a
    reduction among `barriers`, and again for one of `root`. Of those that one is made of the other,
    the last."""
    again = blocks_below(root)
    reduced = {
        k: n
        for barrier in barriers
        if barrier.op in OPS and OPS[barrier.op].kind == "reduction"
        for i in barrier.inputs
        if i.shape is not None
        for k, n in blocks_below(i).items()
    }
    found = [n for k, n in reduced.items() if k in again and n.kind == "mask"]
    found = [n for n in found if any(below.op in COSTLY for below in blocks_below(n).values())]
    inner = {i.id for n in found for i in n.inputs}
    return [n for n in found if n.id not in inner]


def connected(reductions: Sequence[Node]) -> list[list[Node]]:
    """Reductions that read something in common, over one size, go into one pass; others would only
    fill it up."""
    groups: list[tuple[int, set[int], list[Node]]] = []
    for node in reductions:
        size = elements(_reduced(node))
        reads = {k for i in node.inputs if i.shape is not None for k, n in blocks_below(i).items() if not n.inputs}
        joined = [g for g in groups if g[0] == size and g[1] & reads]
        merged = (size, reads.union(*(g[1] for g in joined)), [n for g in joined for n in g[2]] + [node])
        first = groups.index(joined[0]) if joined else len(groups)
        groups = [g for g in groups if g not in joined]
        groups.insert(min(first, len(groups)), merged)
    return [g[2] for g in groups]


def _reduced(node: Node) -> tuple[int, ...]:
    """The shape that a reduction goes over."""
    return next(i.shape for i in node.inputs if i.shape is not None)
