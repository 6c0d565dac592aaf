"""What operations are given: tensors whose shapes agree, integers that are only copied, numbers as
whole tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...grammar.diagnostic import Diagnostic, Label, MergecError, error
from ..checkpoint.bundles import first_covering
from ..checkpoint.dtypes import FLOATS
from ..graph.graph import Graph, Node
from ..ops.shapes import shape_text, shared_parts
from ..ops.table import OPS
from ..terms.terms import Apply
from .faults import Fault, integers, unequal
from .leaves import Origin, Tensors


def check_bundles(tensors: Tensors, term: Apply, nodes: Sequence[Node]) -> None:
    """Raises MergecError (E0456, E0458) where a node is a tensor that means something only beside
    others of its model, or rows of one."""
    found: dict[int, Diagnostic] = {}
    for node in nodes:
        for source in node.inputs if node.op == "gather" else (node,):
            origin = tensors.origin(source) if source.op == "source" else None
            if origin is None or not origin.model.bundles:
                continue
            model, stored = origin.model, source.attribute("range").stored
            bundle = first_covering(model.bundles, stored)
            if bundle is not None:
                found.setdefault(
                    model.number, bundle.computed(model.label, model.span, stored, origin.dtype, term.span)
                )
    if found:
        raise MergecError(list(found.values()))


def check_arithmetic(tensors: Tensors, term: Apply, nodes: Sequence[Node]) -> None:
    """Raises MergecError (E0307, E0311, E0309) where `term` can't be computed of the nodes of its
    arguments."""
    given = [n for n in nodes if n.shape is not None]
    for node in given:
        if node.op == "source" and node.attribute("range").dtype not in FLOATS:
            origin = tensors.origin(node)
            assert origin is not None
            retell = integers(origin.model, origin.dtype, term.span)
            raise Fault(retell((origin.name,), origin.model.space), retell)
    if len({n.shape for n in given}) > 1:
        second = next(n for n in given if n.shape != given[0].shape)
        found = ((given[0], tensors.origin(given[0])), (second, tensors.origin(second)))
        plain = _unequal(term, *found)
        raise Fault(plain, unequal(plain, tensors.template))


def _unequal(term: Apply, *found: tuple[Node, Origin | None]) -> Diagnostic:
    """The error for two nodes of unequal shapes, each with the tensor that it is made from."""
    (first, owner), (second, _) = found
    labels = [Label(term.span, "shapes meet here")]
    labels += [Label(o.model.span, f"has {shape_text(n.shape or ())}") for n, o in found if o]
    notes = [
        f"{f'`{o.name}` of `{o.model.label}`' if o else 'the result'} is {shape_text(n.shape or ())}" for n, o in found
    ]
    one, other = first.shape or (), second.shape or ()
    if owner is not None and owner.name in owner.model.family.vocabulary and one[1:] == other[1:]:
        code, message = "E0311", f"the vocabularies differ: {one[0]} and {other[0]} rows"
        help_: tuple[str, ...] = ("say how to reconcile them: `output(tokenizer=…)`, a model or `union(a, b)`",)
    else:
        code, message = "E0307", "the shapes differ"
        help_ = ('cut or fill what differs: `output(resize="base")`, or `"common"`',) if len(one) == len(other) else ()
    return Diagnostic(code, message, tuple(labels), tuple(notes), help_)


# --- operations on whole tensors ------------------------------------------------------------------


def whole_node(graph: Graph, term: Apply, nodes: tuple[Node, ...], constant: Callable[[Node], float | None]) -> Node:
    """The node of an opaque op, or of any that an installed package has; `constant` tells a number
    that is known while compiling.

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
        raise error("E0208", "this needs a tensor, not a number", term.span, "a number here")
    _check_axes(term.op, term, row.axes, shape)
    if term.op == "matmul" and tensors[1].shape is not None and shape[1] != tensors[1].shape[0]:
        raise error(
            "E0307", "these matrices have no product", term.span, f"{shape[1]} columns meet {tensors[1].shape[0]} rows"
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
        raise error("E0208", f"`{given['name']}` needs a tensor, not a number", term.span, "no tensor here")
    _check_axes(given["name"], term, given.get("axes"), shape)
    return graph.apply(term.op, (*_filled(graph, nodes[:split], shape), *nodes[split:]), term.attributes)


def _check_numbers(name: str, term: Apply, numbers: Sequence[Node]) -> None:
    """The last arguments of an operation must be numbers."""
    for argument, node in zip(term.args[len(term.args) - len(numbers) :], numbers, strict=True):
        if node.shape is not None:
            raise error("E0208", f"`{name}` takes a number here", argument.span, "a tensor")


def _check_axes(name: str, term: Apply, axes: int | None, shape: tuple[int, ...]) -> None:
    """Tensors must have as many axes as the operation takes; None: any."""
    if axes is not None and len(shape) != axes:
        raise error(
            "E0307",
            f"`{name}` takes tensors of {axes} axes",
            term.span,
            f"a tensor of {len(shape)} here",
            help="choose by shape: `where(ndim(x) == 2, …, …)`",
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
