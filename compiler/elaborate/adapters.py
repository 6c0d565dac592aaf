"""Graph nodes for a tensor that adapters change: their factors stay apart, and are multiplied block
by block.

Adapters on one model stand side by side: each changes the model's own tensor, and the changes are
added.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...grammar.diagnostic import Diagnostic, Label, MergecError, error
from ...grammar.source import Span
from ..checkpoint.adapter import Adapter, AdapterPart
from ..checkpoint.catalog import StoredTensor
from ..checkpoint.model import Model
from ..graph.graph import Graph, Node, StoredRange
from ..ops.shapes import elements
from ..terms.terms import Lora, Region, Where
from .ties import KeptTie, change_of, same_change, sharing
from .vocabulary import Vocabulary

Shape = tuple[int, ...]

_MORE_ROWS = (
    "if tokens were added before it was trained: merge it into that model with peft's `merge_and_unload`, save both"
    " with the tokenizer, and name the result with `model(…)`"
)


class Adapted:
    """Applies adapters to nodes of `graph`. `template` tells the shapes where an adapter stands
    without a model; `kept` are ties of the output that no statement asks for."""

    def __init__(self, graph: Graph, template: Model, vocabulary: Vocabulary | None, kept: Sequence[KeptTie]) -> None:
        self.graph, self.template, self.vocabulary, self.kept = graph, template, vocabulary, kept
        self.dropped: list[Diagnostic] = []
        """E0310 for values of tensors that are not stored."""

    def applied(self, terms: Sequence[Lora], base: Region, node: Node, model: Model, where: Where) -> Node:
        """`node`, the value of `base` at the model's canonical tensor `where.name`, as the adapters
        change it: itself where they do not.

        A new magnitude is that of the tensor with its own adapter's product, whatever is added
        beside.

        Raises MergecError: E0453 where an adapter does not fit the model, E0310, E0455, E0463.
        """
        parts = [(term, part) for term in terms if (part := self._part(term, model, where)) is not None]
        name = where.name
        start = value = self._replaced(parts, base, node, where)
        normed = [
            self._normed(term, part, self._sum(start, self._added(term, part, start.shape or (), name)), name)
            for term, part in parts
            if part.change.magnitude is not None
        ]
        for k, other in enumerate(normed):
            value = self.graph.apply("add", (value, self.graph.apply("sub", (other, start)))) if k else other
        for term, part in parts:
            if part.change.magnitude is None:
                value = self._sum(value, self._added(term, part, start.shape or (), name))
        return value

    def delta(self, term: Lora, where: Where) -> Node:
        """What the adapter adds to the canonical tensor `where.name`: 0 where that is nothing.

        Raises MergecError: E0453, E0310, E0455, and E0454 where it does more than add.
        """
        name = where.name
        part, found = self._part(term, self.template, where), self.template.find(name)
        if part is None:
            return self.graph.const(0.0)
        if not part.change.sums or found is None:
            what = "replaces" if part.change.replaced else "scales"
            raise error(
                "E0454",
                f"`{term.adapter.label}` {what} `{name}`, which is no sum",
                term.span,
                "not added to a model here",
                help="apply it first, `let tuned = base + lora(…)`, and go on with `tuned`:"
                " `base + 0.5*(tuned - base)`",
            )
        return self._added(term, part, found[1].shape, name)

    def _part(self, term: Lora, model: Model, where: Where) -> AdapterPart | None:
        """What the adapter does to a tensor of the model."""
        adapter, name = term.adapter, where.name
        part = change_of(adapter, model, name, term.span)
        self._check_ties(term, part, model, where)
        if part is not None and self.vocabulary is not None and name in model.family.vocabulary:
            view = model.find(name)
            runs = self.vocabulary.runs(model, name)
            if view is None or len(runs.models) > 1 or not runs.is_identity(view[1].shape[0]):
                raise error(
                    "E0455",
                    f"`{adapter.label}` changes `{name}`, whose rows `output(tokenizer=…)` moves",
                    term.span,
                    "made for the model's own tokens",
                    help="merge the adapter into its model first, in a recipe of its own",
                )
        return part

    def _check_ties(self, term: Lora, part: AdapterPart | None, model: Model, where: Where) -> None:
        """Whether the output keeps one tensor for two that the adapter changes unlike. Raises
        MergecError (E0310)."""
        shared = sharing(model, where.name)
        for tie in self.kept if shared else ():
            # one that asks for the other's value has it; and what is not to be stored has nothing
            # that could be lost
            if tie.name != where.output or tie.other == where.name or (tie.name == tie.alias and part is None):
                continue
            for other in [tie.other] if tie.other in shared else shared:
                change = change_of(term.adapter, model, other, term.span)
                if same_change(term.adapter, part, change):
                    continue
                if tie.name != tie.alias:
                    raise MergecError(_split(term, tie, part, change))
                self.dropped.append(_split(term, tie, part, change))

    # --- one change

    def _replaced(self, parts: Sequence[tuple[Lora, AdapterPart]], base: Region, node: Node, where: Where) -> Node:
        """The tensor that the model has before anything is added: its own, or one that an adapter
        brings.

        Raises MergecError (E0463) where two adapters are not known to bring the same.
        """
        whole = [(term, part, part.change.replaced) for term, part in parts if part.change.replaced is not None]
        if not whole:
            return node

        def keep(which: str, lora: Lora) -> str:
            return f'to keep the {which} one\'s: `"{where.output}" = {base.span.text} + {lora.span.text}`'

        term, part, stored = whole[0]
        for other, _, again in whole[1:]:
            one, two = term.adapter, other.adapter
            if (one.model.number, stored.name) == (two.model.number, again.name):
                continue
            like = (stored.dtype, stored.shape) == (again.dtype, again.shape)
            if not like or not one.same_bytes(stored.name, again.name, other=two.model.checkpoint):
                raise error(
                    "E0463",
                    f"`{one.label}` and `{two.label}` both replace `{where.name}`, by different tensors",
                    (Label(other.span, "the second"), Label(term.span, "the first")),
                    help=(keep("first", term), keep("second", other)),
                )
        shape, first = node.shape or (), part.first
        if elements(shape) + first > elements(stored.shape) or (
            first == 0 and not part.piece and shape != stored.shape
        ):
            raise _unfit(term.adapter, where.name, shape, stored, term.span)
        return self._stored(term.adapter, stored, first, shape)

    def _sum(self, first: Node, second: Node) -> Node:
        zero = [n.op == "const" and n.attribute("value") == 0 for n in (first, second)]
        return second if zero[0] else first if zero[1] else self.graph.apply("add", (first, second))

    def _added(self, term: Lora, part: AdapterPart, shape: Shape, name: str) -> Node:
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

    def _normed(self, term: Lora, part: AdapterPart, node: Node, name: str) -> Node:
        """A tensor times m/‖·‖, with one number for each output: rows, or columns where the weight
        is transposed."""
        magnitude, shape = part.change.magnitude, node.shape or ()
        assert magnitude is not None
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


def _split(term: Lora, tie: KeptTie, part: AdapterPart | None, other: AdapterPart | None) -> Diagnostic:
    """E0310 for an adapter that does `part` to the tensor that `tie` is about, and `other` to the
    one tied to it."""
    place, first = tie.places
    stored = tie.name != tie.alias
    if part is not None and other is not None:
        what = f"changes `{place}` and `{first}` each in its own way, but the output ties them"
    elif (part is None) == stored:
        what = f"changes `{place}` alone, but the output ties it to `{first}`"
    else:
        what = f"changes `{first}` alone, but the output ties `{place}` to it"
    lost = f"would do it to `{tie.alias}` too" if stored and other is None else f"would drop that of `{tie.alias}`"
    message, keep = f"`{term.adapter.label}` {what}", "what each of the two gets"
    return tie.dropped(message, lost, keep, Label(term.span, "the adapter"))


def _unfit(adapter: Adapter, name: str, shape: Shape, stored: StoredTensor, span: Span) -> MergecError:
    return error(
        "E0453",
        f"`{adapter.label}` does not fit `{name}`",
        span,
        f"the tensor is {list(shape)}",
        notes=f"`{ascii(stored.name)[1:-1]}` of the adapter is {list(stored.shape)}",
        help=_MORE_ROWS if stored.shape[1:] == shape[1:] and stored.shape[:1] > shape[:1] else (),
    )
