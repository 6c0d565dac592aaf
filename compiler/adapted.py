"""Graph nodes for a tensor that an adapter changes: its factors stay apart, and are multiplied block by block."""

from __future__ import annotations

import dataclasses

from ..grammar.diagnostic import Diagnostic, Label, MergecError
from ..grammar.source import Span
from .adapters import Adapter, Part
from .catalog import StoredTensor
from .graph import Graph, Node, StoredRange
from .models import Model
from .shapes import elements
from .terms import Lora
from .vocabulary import Vocabulary

Shape = tuple[int, ...]


class Adapted:
    """Applies adapters to nodes of `graph`. `template` tells the shapes where an adapter stands without a model."""

    def __init__(self, graph: Graph, template: Model, vocabulary: Vocabulary | None) -> None:
        self.graph, self.template, self.vocabulary = graph, template, vocabulary

    def applied(self, term: Lora, node: Node, model: Model, name: str) -> Node:
        """`node`, the value of the model's canonical tensor `name`, as the adapter changes it: itself where it does
        not.

        Raises MergecError: E0453 where the adapter does not fit the model, E0455.
        """
        for part in self._parts(term, model, name):
            node = self._changed(term, part, node, name)
        return node

    def delta(self, term: Lora, name: str) -> Node:
        """What the adapter adds to the canonical tensor `name`: 0 where that is nothing.

        Raises MergecError: E0453, E0455, and E0454 where it does more than add.
        """
        out = self.graph.const(0.0)
        found = self.template.find(name)
        for part in self._parts(term, self.template, name):
            if not part.change.sums or found is None:
                what = "replaces" if part.change.replaced else "scales"
                raise MergecError(
                    Diagnostic(
                        "E0454",
                        f"`{term.adapter.label}` {what} `{name}`, which is no sum",
                        (Label(term.span, "not added to a model here"),),
                        help=(
                            "apply it first, `let tuned = base + lora(…)`, and go on with `tuned`:"
                            " `base + 0.5*(tuned - base)`",
                        ),
                    )
                )
            out = self._sum(out, self._added(term, part, found[1].shape, name))
        return out

    def _parts(self, term: Lora, model: Model, name: str) -> list[Part]:
        """What the adapter does to a tensor, as a rule one thing or nothing.

        What it does to tensors that share storage it does to the one that is stored. Where it replaces some of them by
        different ones they share no more: the tensor's own counts, else that which it shares storage with.
        """
        adapter, bound = term.adapter, term.adapter.bound(model, term.span)
        primary = model.aliases.get(name, name)
        group = [primary, *(alias for alias, other in model.aliases.items() if other == primary)]
        parts = {n: bound[n] for n in group if n in bound}
        found = [p for p in parts.values() if p.change.replaced is None]
        whole = {n: p for n, p in parts.items() if p.change.replaced is not None}
        first = whole.get(name, whole.get(primary))
        if first is not None:
            like = [p for p in whole.values() if p is not first and adapter.same(p.change, first.change)]
            rest = [dataclasses.replace(p, change=dataclasses.replace(p.change, replaced=None)) for p in like]
            found = [first, *rest]
        if found and self.vocabulary is not None and name in model.family.vocabulary:
            view = model.find(name)
            runs = self.vocabulary.runs(model)
            if view is None or len(runs.models) > 1 or not runs.is_identity(view[1].shape[0]):
                raise MergecError(
                    Diagnostic(
                        "E0455",
                        f"`{term.adapter.label}` changes `{name}`, whose rows `output(tokenizer=…)` moves",
                        (Label(term.span, "made for the model's own tokens"),),
                        help=("merge the adapter into its model first, in a recipe of its own",),
                    )
                )
        return found

    # --- one change

    def _changed(self, term: Lora, part: Part, node: Node, name: str) -> Node:
        change, shape = part.change, node.shape or ()
        if change.replaced is not None:
            first = part.first
            if elements(shape) + first > elements(change.replaced.shape) or (
                first == 0 and not part.piece and shape != change.replaced.shape
            ):
                raise _unfit(term.adapter, name, shape, change.replaced, term.span)
            node = self._stored(term.adapter, change.replaced, first, shape)
        node = self._sum(node, self._added(term, part, shape, name))
        if change.magnitude is not None:
            node = self._normed(term, part, node, change.magnitude, name)
        return node

    def _sum(self, first: Node, second: Node) -> Node:
        zero = [n.op == "const" and n.attribute("value") == 0 for n in (first, second)]
        return second if zero[0] else first if zero[1] else self.graph.apply("add", (first, second))

    def _added(self, term: Lora, part: Part, shape: Shape, name: str) -> Node:
        """What is added to a tensor of this shape."""
        adapter, change, out = term.adapter, part.change, self.graph.const(0.0)
        if change.vector is not None:
            vector, scale = change.vector
            if len(shape) != 1 or part.first + shape[0] > elements(vector.shape):
                raise _unfit(adapter, name, shape, vector, term.span)
            out = self._scaled(self._stored(adapter, vector, part.first, shape), scale)
        product = change.product
        if product is None:
            return out
        rows, width = elements(shape[:1]), elements(shape[1:])
        row = part.first // width if width else 0
        fits = shape == (product.inputs, product.outputs) if part.turned else width == product.inputs
        if not fits or not (
            part.turned or row + rows == product.outputs or (part.piece and row + rows < product.outputs)
        ):
            raise _unfit(adapter, name, shape, product.b, term.span)
        outputs = product.outputs if part.turned else rows
        left = self._stored(adapter, product.b, row * product.rank, (outputs, product.rank))
        right = self._stored(adapter, product.a, 0, (product.rank, product.inputs))
        turned = (("turned", int(part.turned)),)
        return self._sum(
            out, self._scaled(self.graph.add("low_rank", (left, right), turned, "tensor", shape), product.scale)
        )

    def _normed(self, term: Lora, part: Part, node: Node, magnitude: StoredTensor, name: str) -> Node:
        """A tensor times m/‖·‖, with one number for each output: rows, or columns where the weight is turned."""
        shape = node.shape or ()
        rows, width = elements(shape[:1]), elements(shape[1:])
        count, first = (width, 0) if part.turned else (rows, part.first // width if width else 0)
        if first + count > elements(magnitude.shape) or len(shape) < 2:
            raise _unfit(term.adapter, name, shape, magnitude, term.span)
        ones = self.graph.const(1.0)
        square = self.graph.apply("mul", (node, node))
        if part.turned:
            norm = self.graph.apply("column_sum", (square,))
            left = self.graph.add("fill", (ones,), (), "tensor", (rows, 1))
            right = self._stored(term.adapter, magnitude, first, (1, width))
        else:
            norm = self.graph.apply("row_sum", (square,), (("row", width),))
            left = self._stored(term.adapter, magnitude, first, (rows, 1))
            right = self.graph.add("fill", (ones,), (), "tensor", (1, width))
        numbers = self.graph.add("low_rank", (left, right), (("turned", 0),), "tensor", shape)
        return self.graph.apply("mul", (self.graph.apply("div", (numbers, self.graph.apply("sqrt", (norm,)))), node))

    def _scaled(self, node: Node, scale: float) -> Node:
        return node if scale == 1 else self.graph.apply("mul", (node, self.graph.const(scale)))

    def _stored(self, adapter: Adapter, tensor: StoredTensor, first: int, shape: Shape) -> Node:
        place = StoredRange(adapter.model.number, tensor.name, tensor.dtype, first)
        return self.graph.source(place, shape)


def _unfit(adapter: Adapter, name: str, shape: Shape, stored: StoredTensor, span: Span) -> MergecError:
    return MergecError(
        Diagnostic(
            "E0453",
            f"`{adapter.label}` does not fit `{name}`",
            (Label(span, f"the tensor is {list(shape)}"),),
            notes=(f"`{ascii(stored.name)[1:-1]}` of the adapter is {list(stored.shape)}",),
        )
    )
