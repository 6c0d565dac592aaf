"""Nodes for operations on whole tensors, which need to know what shapes they are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...grammar.diagnostic import Diagnostic, Label, MergecError
from ..graph.graph import Graph, Node
from ..ops.shapes import shared_parts
from ..ops.table import OPS
from ..terms.terms import Apply


def whole_node(graph: Graph, term: Apply, nodes: tuple[Node, ...], constant: Callable[[Node], float | None]) -> Node:
    """The node of an opaque op, or of any that an installed package has; `constant` tells a number that is known
    while compiling.

    Of tensors that are all absent the result is 0. Raises MergecError (E0208, E0307).
    """
    row = OPS[term.op]
    if "kernel" in row.attributes:
        return _installed_node(graph, term, nodes)
    split = len(nodes) - len(row.numbers)
    tensors, numbers = nodes[:split], nodes[split:]
    _check_numbers(term.op, term, numbers)
    shape = next((n.shape for n in tensors if n.shape is not None), None)
    if shape is None:
        if all(constant(n) == 0 for n in tensors):
            return graph.const(0.0)
        raise MergecError(
            Diagnostic("E0208", "this needs a tensor, not a number", (Label(term.span, "a number here"),))
        )
    _check_axes(term.op, term, row.axes, shape)
    if term.op == "matmul" and tensors[1].shape is not None and shape[1] != tensors[1].shape[0]:
        raise MergecError(
            Diagnostic(
                "E0307",
                "these matrices have no product",
                (Label(term.span, f"{shape[1]} columns meet {tensors[1].shape[0]} rows"),),
            )
        )
    return graph.apply(term.op, (*_filled(graph, tensors, shape), *numbers))


def _installed_node(graph: Graph, term: Apply, nodes: tuple[Node, ...]) -> Node:
    """The node of a primitive of an installed package, all of whose tensors are given in full.

    Raises MergecError (E0208, E0307).
    """
    given = dict(term.attributes)
    split = len(nodes) - int(given["numbers"])
    _check_numbers(given["name"], term, nodes[split:])
    shape = next((n.shape for n in nodes if n.shape is not None), None)
    if shape is None:
        raise MergecError(
            Diagnostic(
                "E0208", f"`{given['name']}` needs a tensor, not a number", (Label(term.span, "no tensor here"),)
            )
        )
    _check_axes(given["name"], term, given.get("axes"), shape)
    return graph.apply(term.op, (*_filled(graph, nodes[:split], shape), *nodes[split:]), term.attributes)


def _check_numbers(name: str, term: Apply, numbers: Sequence[Node]) -> None:
    """The last arguments of an operation must be numbers."""
    for argument, node in zip(term.args[len(term.args) - len(numbers) :], numbers, strict=True):
        if node.shape is not None:
            raise MergecError(Diagnostic("E0208", f"`{name}` takes a number here", (Label(argument.span, "a tensor"),)))


def _check_axes(name: str, term: Apply, axes: int | None, shape: tuple[int, ...]) -> None:
    """Tensors must have as many axes as the operation takes; None: any."""
    if axes is not None and len(shape) != axes:
        raise MergecError(
            Diagnostic(
                "E0307",
                f"`{name}` takes tensors of {axes} axes",
                (Label(term.span, f"a tensor of {len(shape)} here"),),
                help=("choose by shape: `where(ndim(x) == 2, …, …)`",),
            )
        )


def _filled(graph: Graph, nodes: Sequence[Node], shape: tuple[int, ...]) -> tuple[Node, ...]:
    """The nodes, numbers among them as tensors of this shape."""
    return tuple(n if n.shape is not None else graph.add("fill", (n,), (), "tensor", shape) for n in nodes)


def part_node(graph: Graph, packed: Node, index: int) -> Node:
    """One of the tensors that `svd_shared` gives; 0 where it has become that."""
    if packed.shape is None:
        return packed
    first, shape = shared_parts([i.shape for i in packed.inputs if i.shape is not None])[index]
    return graph.add("part", (packed,), (("first", first),), "tensor", shape)
