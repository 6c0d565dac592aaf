"""Whether tensors may be computed with: shapes must agree, and integers may only be copied."""

from __future__ import annotations

from collections.abc import Sequence

from ...grammar.diagnostic import Diagnostic, Label, MergecError
from ..checkpoint.bundles import first_covering
from ..checkpoint.dtypes import FLOATS
from ..graph.graph import Node
from ..ops.shapes import shape_text
from ..terms.terms import Apply
from .leaves import Origin, Tensors


def check_bundles(tensors: Tensors, term: Apply, nodes: Sequence[Node]) -> None:
    """Raises MergecError (E0456, E0458) where a node is a tensor that means something only beside others of its model,
    or rows of one."""
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
    """Raises MergecError (E0307, E0311, E0309) where `term` can't be computed of the nodes of its arguments."""
    given = [n for n in nodes if n.shape is not None]
    for node in given:
        if node.op == "source" and node.attribute("range").dtype not in FLOATS:
            origin = tensors.origin(node)
            assert origin is not None
            name, label = origin.name, origin.model.label
            raise MergecError(
                Diagnostic(
                    "E0309",
                    f"`{name}` of `{label}` is {origin.dtype} and may only be copied",
                    (Label(term.span, "arithmetic on integers"),),
                    help=(f'copy it from one model: `"{name}" = {label}`',),
                )
            )
    if len({n.shape for n in given}) > 1:
        second = next(n for n in given if n.shape != given[0].shape)
        raise _unequal(term, (given[0], tensors.origin(given[0])), (second, tensors.origin(second)))


def _unequal(term: Apply, *found: tuple[Node, Origin | None]) -> MergecError:
    """The error for two nodes of unequal shapes, each with the tensor that it is made from."""
    (first, owner), (second, _) = found
    labels = [Label(term.span, "shapes meet here")]
    labels += [Label(o.model.span, f"has {shape_text(n.shape or ())}") for n, o in found if o]
    notes = [
        f"{f'`{o.name}` of `{o.model.label}`' if o else 'the result'} is {shape_text(n.shape or ())}" for n, o in found
    ]
    one, other = first.shape or (), second.shape or ()
    if owner is not None and owner.name in owner.model.family.vocabulary and one[1:] == other[1:]:
        code, message = "E0311", "the vocabularies differ"
        help_: tuple[str, ...] = ("say how to reconcile them: `output(tokenizer=…)`, a model or `union(a, b)`",)
    else:
        code, message = "E0307", "the shapes differ"
        help_ = ('cut or fill what differs: `output(resize="base")`, or `"common"`',) if len(one) == len(other) else ()
    return MergecError(Diagnostic(code, message, tuple(labels), tuple(notes), help_))
