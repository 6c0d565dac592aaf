"""Asks a term for one tensor: the graph node that is its value there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ...grammar.diagnostic import MergecError, error
from ...grammar.source import Span
from ..checkpoint.model import Model
from ..family.parts import renamed
from ..graph.graph import Graph, Node
from ..graph.masks import mask_key
from ..ops.shapes import elements
from ..ops.table import OPS, SCALARS
from ..terms.lifting import as_region
from ..terms.lookup import exists, lookups, name_in, relocated
from ..terms.terms import (
    Among,
    Apply,
    Assembly,
    At,
    Choice,
    Leaf,
    Lora,
    NumberTerm,
    Region,
    Stack,
    Tie,
    Where,
    adapters_on,
    is_region,
    owners,
    walk,
)
from ..terms.varying import resolve
from .absences import Absences
from .across import WHOLE_MODEL, across, model_threshold
from .adapters import Adapted
from .leaves import Tensors
from .operands import check_arithmetic, check_bundles, part_node, whole_node
from .ties import KeptTie
from .vocabulary import Vocabulary

MAX_DEPTH = 600
"""Nesting of operations in one expression; deeper is refused instead of exhausting the
interpreter's stack."""


class Instantiator:
    """Makes nodes in `graph` for terms at places; every (term, place) pair once."""

    def __init__(
        self,
        graph: Graph,
        seed: int,
        vocabulary: Vocabulary | None,
        template: Model,
        kept: Sequence[KeptTie],
        *,
        wide: bool,
        resize: str,
    ) -> None:
        self.graph, self.seed, self.wide = graph, seed, wide
        self.adapted = Adapted(graph, template, vocabulary, kept)
        self.tensors = Tensors(graph, vocabulary, template, resize)
        self._root: tuple[Region, Where] | None = None
        self.domain: tuple[Where, ...] = ()
        self._models: dict[tuple[int, int], tuple[Node, Apply]] = {}
        self.absences = Absences()
        self._fewer: dict[tuple[int, tuple[int, ...]], tuple[Among, Region]] = {}
        self._memo: dict[tuple[int, int], Node] = {}
        self._values: dict[int, float] = {}
        self._alive: list[tuple[Region, Where]] = []
        self._depth = 0

    def root(self, value: Any, where: Where, span: Span) -> Node:
        """The node of a statement's value at an output tensor. Raises MergecError."""
        if not is_region(value):
            value = as_region(value, span)
        self._root = (value, where)
        self._memo.clear()
        self._alive.clear()
        self._depth = 0
        try:
            return self.node(value, where)
        except RecursionError:
            raise error("E0211", "this expression is nested too deeply", span, "here") from None

    def node(self, term: Region, where: Where) -> Node:
        key = (id(term), id(where))
        found = self._memo.get(key)
        if found is None:
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise error("E0211", "this expression is nested too deeply", term.span, "here")
            found = self._make(term, where)
            self._depth -= 1
            self._memo[key] = found
            self._alive.append((term, where))  # so that their ids stay theirs
        return found

    def _make(self, term: Region, where: Where) -> Node:
        if isinstance(term, Leaf):
            return self._leaf(term, where)
        if isinstance(term, Lora):
            return self.adapted.delta(term, where)
        if isinstance(term, NumberTerm):
            return self._number(term.value, where, term.span)
        if isinstance(term, Apply):
            return self._apply(term, where)
        if isinstance(term, Among):
            return self._among(term, where)
        if isinstance(term, Choice | At | Stack | Assembly):
            found = relocated(term, where)
            return self.node(*found) if found is not None else self._absent(term, where)
        assert isinstance(term, Tie)
        raise error("E0312", "`tie` stands alone on the right of a place", term.span, "not inside an expression")

    def _number(self, value: Any, where: Where, span: Span) -> Node:
        number = resolve(value, where)
        if isinstance(number, bool):
            return self.graph.const(1.0 if number else 0.0)
        if not isinstance(number, int | float):
            raise error("E0208", "this is not a number at every tensor", span)
        return self.graph.const(float(number))

    # --- leaves

    def _leaf(self, term: Leaf, where: Where) -> Node:
        name = name_in(term, where)
        if name is None:
            return self._absent(term, where)
        return self.tensors.node(term.model, name, term.span, where, self._beside)

    def _beside(self, where: Where) -> Iterator[tuple[Model, str] | None]:
        """All that the statement looks up for the tensor of the output that `where` is about."""
        assert self._root is not None
        value, top = self._root
        if top.output != where.output:
            top = next(w for w in self.domain if w.output == where.output)
        return lookups(value, top)

    def _absent(self, term: Region, where: Where) -> Node:
        """An optional tensor that a region does not have."""
        self.absences.count_as_zero(owners(term)[0], term.span, where.output)
        return self.graph.const(0.0)

    def _among(self, term: Among, where: Where) -> Node:
        """The function's value for those of its models that have the tensor."""
        present = tuple([i for i, m in enumerate(term.models) if exists(m, where)])
        if len(present) in (0, len(term.models)):
            return self.node(term.full, where)
        absent = [m for i, m in enumerate(term.models) if i not in present]
        for model in absent:
            self.absences.drop(model, term, where.output)
        key = (id(term), present)
        if key not in self._fewer:
            self._fewer[key] = (term, self._without(term, present, absent, where))
        return self.node(self._fewer[key][1], where)

    def _without(self, term: Among, present: tuple[int, ...], absent: Sequence[Region], where: Where) -> Region:
        """The value for some of the models. Raises MergecError (E0470) where it takes numbers of
        the whole model."""
        names = ", ".join(f"`{m.label or 'an expression'}`" for m in absent)
        note = f"without {names}, which {'lacks' if len(absent) == 1 else 'lack'} the optional `{where.output}`"
        fix = f'give that place a value of its own: `"{where.output}" = …`'
        if any(isinstance(t, Apply) and t.op in WHOLE_MODEL for t in walk(term.full)):
            raise error(
                "E0470",
                f"`{term.function}` takes numbers of the whole model, and not all of its models have all of it",
                term.span,
                f"{names} can't drop out for single tensors",
                notes=note,
                help=fix,
            )
        try:
            return term.again(present)
        except MergecError as fault:
            raise MergecError(
                [dataclasses.replace(d, notes=(*d.notes, note), help=(*d.help, fix)) for d in fault.diagnostics]
            ) from None

    # --- operations

    def _apply(self, term: Apply, where: Where) -> Node:
        if term.op == "bernoulli":
            return self._bernoulli(term, where)
        if term.op == "where":
            # where the choice is known, the other branch may be an operation that this shape
            # doesn't allow
            known = self._constant(self.node(term.args[0], where))
            if known is not None:
                return self._plain(self.node(term.args[1 if known else 2], where))
        if term.op == "add" and any(isinstance(a, Lora) for a in term.args):
            return self._with_adapters(term, where)
        if term.op in WHOLE_MODEL:
            return self._whole_model(term)
        nodes = tuple([self.node(a, where) for a in term.args])
        if term.op == "numel":
            return self.graph.const(float(elements(nodes[0].shape or ())))
        if term.op == "row_length":
            axes = nodes[0].shape or ()
            return self.graph.const(float(axes[-1] if len(axes) > 1 else elements(axes)))
        if term.op == "ndim":
            return self.graph.const(float(len(nodes[0].shape or ())))
        check_bundles(self.tensors, term, nodes)
        if term.op == "part":
            return part_node(self.graph, nodes[0], int(dict(term.attributes)["index"]))
        if term.op == "topk_mask":
            return self._topk(term, nodes)
        if term.op == "rank_mask":
            return self._rank(term, nodes)
        if term.op == "quantile":
            return self._quantile(term, nodes)
        row = OPS[term.op]
        if row.shape is None or row.kind != "opaque" or row.arity < 0:
            check_arithmetic(self.tensors, term, nodes)
        if row.kind == "opaque" or term.op == "installed":
            return whole_node(self.graph, term, tuple(self._plain(n) for n in nodes), self._constant)
        if row.kind == "reduction":
            return self._reduction(term, nodes)
        if row.kind == "scalar" and any(n.shape is not None for n in nodes):
            raise error("E0208", "this needs numbers, not tensors", term.span, "a tensor among them")
        # conditions: a number is a condition too (non-zero)
        conditions = [k < len(row.takes) and row.takes[k] == "m" for k in range(len(nodes))]
        nodes = tuple(self._condition(n) if c else self._plain(n) for n, c in zip(nodes, conditions, strict=True))
        # a number that the recipe gives; zeros that follow from the tensors are divided by as IEEE
        # has it
        if term.op == "div" and isinstance(term.args[1], NumberTerm) and self._constant(nodes[1]) == 0:
            raise error("E0216", "this divides by zero", term.span, "division by zero", notes=f"at `{where.output}`")
        if "row" not in row.attributes:
            return self._known(self.graph.apply(term.op, nodes))
        shape = nodes[0].shape
        if shape is None:
            if self._constant(nodes[0]) == 0:
                return nodes[0]
            raise error("E0208", "a number has no rows", term.span, "a number here")
        # a tensor of one axis is a single row
        return self.graph.apply(term.op, nodes, (("row", shape[-1] if len(shape) > 1 else elements(shape)),))

    def _with_adapters(self, term: Apply, where: Where) -> Node:
        """`model + lora(…) + lora(…)`; adapters on something without a model are only what they
        add."""
        other, loras = adapters_on(term)
        node, found = self._plain(self.node(other, where)), owners(other)
        if not found:
            for lora in loras:
                node = self.graph.apply("add", (node, self.adapted.delta(lora, where)))
            return node
        name = renamed(where.name, where.space.family, found[0].space.family)
        if name != where.name:
            where = where.at(coordinate=where.coordinate, counts=where.counts, name=name, space=found[0].space)
        try:
            made = self.adapted.applied(loras, other, node, found[0].model, where)
        except MergecError:
            check_bundles(self.tensors, term, (node,))  # codes have shapes of their own
            raise
        if made is not node:
            check_bundles(self.tensors, term, (node,))
            check_arithmetic(self.tensors, term, (node,))
        return made

    def _whole_model(self, term: Apply) -> Node:
        """A number of all tensors of the statement: the same wherever it is asked for."""
        key = (id(term), id(self.domain))
        if key not in self._models:
            if term.op == "model_threshold":
                node = model_threshold(self.graph, self.node, term, self.domain, self.wide)
            else:
                node = across(self.graph, self.node, term, self.domain)
            self._models[key] = (node, term)
        return self._models[key][0]

    def _known(self, node: Node) -> Node:
        """The node, after noting its value if that is arithmetic on constants, such as a tensor's
        size."""
        if node.shape is None and node.op in SCALARS:
            values = [self._constant(i) for i in node.inputs]
            known = [v for v in values if v is not None]
            if len(known) == len(values):
                self._values[node.id] = float(SCALARS[node.op](*known))
        return node

    def _constant(self, node: Node) -> float | None:
        """A number that is known while compiling."""
        return float(node.attribute("value")) if node.op == "const" else self._values.get(node.id)

    def _plain(self, node: Node) -> Node:
        """Masks as 0 or 1 where numbers are wanted."""
        return self.graph.apply("number", (node,)) if node.kind == "mask" else node

    def _condition(self, node: Node) -> Node:
        return node if node.kind != "tensor" else self.graph.apply("ne", (node, self.graph.const(0.0)))

    def _reduction(self, term: Apply, nodes: tuple[Node, ...]) -> Node:
        if any(n.shape is None for n in nodes):
            if all(self._constant(n) == 0 for n in nodes if n.shape is None):
                return self.graph.const(0.0)  # of a tensor that is absent, so zero
            if term.op == "dot" and any(n.shape is not None for n in nodes):
                scalar, tensor = sorted(nodes, key=lambda n: n.shape is not None)
                return self.graph.apply("mul", (scalar, self.graph.apply("sum", (tensor,))))
            raise error("E0208", "this needs a tensor, not a number", term.span, "a number here")
        if OPS[term.op].takes != "m":
            nodes = tuple(self._plain(n) for n in nodes)
        elif nodes[0].kind != "mask":
            nodes = (self._condition(nodes[0]),)
        return self.graph.apply(term.op, nodes)

    def _topk(self, term: Apply, nodes: tuple[Node, ...]) -> Node:
        x, density = nodes
        known = self._constant(density)
        if known is None:
            raise error("E0218", "a density can't depend on the weights", term.args[1].span, "a region")
        if x.shape is None or known >= 1:
            return self.graph.const(1.0)
        if known <= 0:
            return self.graph.const(0.0)
        return self._largest(term, x, max(1, int(known * elements(x.shape))))

    def _rank(self, term: Apply, nodes: tuple[Node, ...]) -> Node:
        x, count = nodes
        if x.shape is None and self._constant(x) == 0:
            return self.graph.const(1.0)  # a tensor that is absent, so zero: it does not matter which elements
        if count.shape is not None or x.shape is None:
            odd, what = (1, "a tensor") if count.shape is not None else (0, "a number")
            message = "`rank_mask` takes a tensor and a number"
            raise error("E0208", message, term.args[odd].span, f"this is {what}")
        known = self._constant(count)
        if known is None:
            check_arithmetic(self.tensors, term, (x,))
            x = self._plain(x)
            return self.graph.apply("above", (x, self.graph.apply("threshold_at", (x, count))))
        n = elements(x.shape or ())
        return self._largest(term, x, 0 if math.isnan(known) else int(min(max(known, 0), n)))

    def _largest(self, term: Apply, x: Node, k: int) -> Node:
        """Which k elements of a tensor are largest in magnitude."""
        n = elements(x.shape or ())
        if k <= 0 or k >= n:
            return self.graph.const(0.0 if k <= 0 else 1.0)
        check_arithmetic(self.tensors, term, (x,))
        x = self._plain(x)
        threshold = self.graph.apply("threshold", (x,), (("k", k),))
        return self.graph.apply("above", (x, threshold))

    def _quantile(self, term: Apply, nodes: tuple[Node, ...]) -> Node:
        x, q = nodes
        share = self._constant(q)
        if share is None:
            raise error("E0218", "`q` can't depend on the weights", term.args[1].span, "a region")
        if not 0 <= share <= 1:
            raise error("E0209", f"`q` of `quantile` is {share:g}", term.args[1].span, "not from 0 to 1")
        if x.shape is None:
            return self._reduction(Apply("minimum", term.args[:1], term.span), (x,))
        if not elements(x.shape):
            return self.graph.const(0.0)
        check_arithmetic(self.tensors, term, (x,))
        return self.graph.apply("kth_smallest", (self._plain(x),), (("k", int(share * (elements(x.shape) - 1))),))

    def _bernoulli(self, term: Apply, where: Where) -> Node:
        model, density = term.args
        probability = self._plain(self.node(density, where))
        if probability.op == "const":
            share = float(probability.attribute("value"))
            if share >= 1 or share <= 0:
                return self.graph.const(1.0 if share >= 1 else 0.0)
        given = dict(term.attributes)
        key = mask_key(self.seed, where.output, given["label"], given["stream"])
        shape = self.node(model, where).shape
        if shape is None:
            return self.graph.const(1.0)
        if probability.shape is not None:
            check_arithmetic(self.tensors, term, (self.node(model, where), probability))
        return self.graph.add("bernoulli", (probability,), (("key", key),), "mask", shape)
