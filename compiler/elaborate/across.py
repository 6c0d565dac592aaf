"""Numbers of a whole model: of all tensors that the statement at hand gives a value to.

`across(x)` adds a number of each tensor up. `model_threshold(x, density)` is the magnitude that a
share of all elements reaches, found as in a single tensor by counting bit patterns 16 bits at a
time, the counts of all tensors together: one more pass over the model for every 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...grammar.diagnostic import error
from ..graph.graph import Graph, Node
from ..ops.shapes import elements
from ..ops.table import OPS
from ..terms.terms import Apply, Region, Where

Ask = Callable[[Region, Where], Node]
"""The node of a term at a place."""

WHOLE_MODEL = frozenset({"model_threshold", *(name for name, row in OPS.items() if row.whole_model)})
"""The operations of terms that are numbers of the whole model: those of the graph, and one that
becomes several."""

DIGIT = 16
"""Bits of a pattern that one pass counts."""


def across(graph: Graph, ask: Ask, term: Apply, domain: Sequence[Where]) -> Node:
    """The sum, maximum or minimum over the domain's tensors of the number that the term's argument
    is at each."""
    nodes = [ask(term.args[0], where) for where in domain]
    if any(n.shape is not None for n in nodes):
        raise error(
            "E0208",
            "this takes a number a tensor, not a tensor",
            term.span,
            "a tensor here",
            help="reduce it first: `across(total(x))`",
        )
    return graph.apply(term.op, tuple(nodes))


def model_threshold(graph: Graph, ask: Ask, term: Apply, domain: Sequence[Where], wide: bool) -> Node:
    """The k-th largest magnitude over the domain's tensors, k being max(1, int(density·n)) of all n
    elements.

    `wide`: the arithmetic is float64, whose patterns have four digits instead of two.
    """
    tensors = [n for n in (ask(term.args[0], where) for where in domain) if n.shape is not None]
    density = ask(term.args[1], domain[0])
    if density.op != "const":
        raise error("E0218", "a density can't depend on the weights", term.args[1].span, "a region")
    count = sum(elements(n.shape or ()) for n in tensors)
    share = float(density.attribute("value"))
    if share >= 1 or not count:
        return graph.const(0.0)
    rank = graph.const(float(max(1, int(share * count))))
    prefix = graph.const(0.0)
    digits: list[Node] = []
    width = 64 if wide else 32
    for shift in range(width - DIGIT, -1, -DIGIT):
        counts = tuple([graph.apply("digits", (n, prefix), (("shift", shift),)) for n in tensors])
        digits.append(graph.apply("digit_of_rank", (rank, *counts)))
        rank = graph.apply("rank_in_digit", (rank, *counts))
        prefix = graph.apply("join_digits", tuple(digits))
    return graph.apply("number_of_digits", tuple(digits))
