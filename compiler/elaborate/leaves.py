"""Graph nodes for tensors of models, and which of them a node is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...grammar.diagnostic import Diagnostic, Label, MergecError, error, finding
from ...grammar.records import dataclass
from ...grammar.source import Span
from ..checkpoint.bundles import codes_at
from ..checkpoint.dtypes import FLOATS
from ..checkpoint.layouts import View
from ..checkpoint.model import Model
from ..family.parts import renamed
from ..graph.graph import Graph, Node, StoredRange
from ..ops.shapes import shape_text
from ..terms.terms import Where
from .faults import Fault, lacking
from .resize import common_shape, units
from .vocabulary import Vocabulary

Lookups = Callable[[Where], Iterable[tuple[Model, str] | None]]


@dataclass(frozen=True, slots=True)
class Origin:
    """The tensor that a source reads: its model, its name there and the dtype that it is stored
    in."""

    model: Model
    name: str
    dtype: str


class Tensors:
    """Makes the nodes, in `graph`.

    Rows are gathered where the `vocabulary` is reconciled, and sizes brought to those of the
    `template` or to what is common, as `resize` says.
    """

    def __init__(self, graph: Graph, vocabulary: Vocabulary | None, template: Model, resize: str) -> None:
        self._graph, self._vocabulary, self.template, self._resize = graph, vocabulary, template, resize
        self._origins: dict[int, Origin] = {}

    def node(self, model: Model, name: str, span: Span, where: Where, beside: Lookups) -> Node:
        """A tensor of a model, for a statement that makes a tensor of the output of all that
        `beside` tells for it.

        Raises MergecError: E0306 where the model has none of that name (E0457 where the template
        has codes there), E0311 and E0307 where rows can't be gathered.
        """
        found = model.find(name)
        if found is None:
            at = model.space.layer_of(name)
            depth = model.space.depths.get(at[0].name, 0) if at else 0
            if at is not None and at[1] >= depth:
                raise error(
                    "E0306",
                    f"`{model.label}` has no layer {at[1]}",
                    span,
                    f"{depth} layers, 0 to {depth - 1}",
                    help=f"layers of another number are picked so: `{model.label}.{at[0].name}[…]`",
                )
            like = self.template.find(where.output)
            codes = codes_at(self.template.bundles, like[1].stored) if like is not None else None
            if like is not None and codes is not None:
                raise MergecError(codes.replaced(self.template.label, self.template.span, like[1].stored, span))
            plain = finding(
                "E0306",
                f"`{model.label}` has no tensor for `{where.output}`",
                model.span,
                f"no `{name}` among its {len(model.tensors)} tensors",
                notes=[f"`{model.label}` is {b.found}" for b in model.bundles],
                help=model.bundles[0].ways
                if model.bundles
                else (f'leave it to another model: `"{where.output}" = …` in a later statement',),
            )
            raise Fault(plain, lacking(model, self.template, plain))
        stored_name, view = found
        if self._vocabulary is not None and name in model.family.vocabulary and model.family.vocabulary[name] == 0:
            return self._gather(model, name, view.shape)
        node = self.stored(model, stored_name, view)
        target = self._target(where, beside) if self._resize != "error" and model.dtype(view) in FLOATS else None
        if target is None or target == view.shape or len(target) != len(view.shape):
            return node
        width, runs = units(view.shape, target)
        inputs = [node]
        if any(source for _, terms in runs for source, _ in terms):
            own = self.template.find(where.output)
            assert own is not None
            inputs.append(self.stored(self.template, *own))
        return self._graph.add("gather", tuple(inputs), (("runs", runs), ("width", width)), "tensor", target)

    def stored(self, model: Model, name: str, view: View) -> Node:
        """A tensor of a model as it is stored."""
        dtype = model.dtype(view)
        place = StoredRange(model.number, view.stored, dtype, view.first)
        node = self._graph.source(place, view.shape)
        self._origins.setdefault(node.id, Origin(model, name, dtype))
        return node

    def _target(self, where: Where, beside: Lookups) -> tuple[int, ...] | None:
        """The shape that the tensors of a statement are brought to at an output tensor."""
        if self._resize == "base":
            own = self.template.find(where.output)
            return own[1].shape if own is not None else None
        tensors = [found[0].find(found[1]) for found in beside(where) if found is not None]
        return common_shape([tensor[1].shape for tensor in tensors if tensor is not None])

    def _gather(self, model: Model, name: str, shape: tuple[int, ...]) -> Node:
        assert self._vocabulary is not None
        inputs, runs, whole = [], self._vocabulary.runs(model, name), []
        for other in runs.models:
            found = other.find(renamed(name, model.family, other.family))
            if found is None:
                raise error("E0311", f"`{other.label}` has no `{name}` to take rows from", other.span)
            view = found[1]
            if view.shape[1:] != shape[1:]:
                raise MergecError(
                    Diagnostic(
                        "E0307",
                        f"rows of `{name}` are {shape_text(shape[1:])} in `{model.label}`"
                        f" and {shape_text(view.shape[1:])} in `{other.label}`",
                        (Label(model.span), Label(other.span)),
                    )
                )
            inputs.append(self.stored(other, found[0], view))
            whole.append(view.shape[0])
        if len(inputs) == 1 and runs.is_identity(whole[0]):
            return inputs[0]
        rows = self._vocabulary.size
        gathered = self._graph.add("gather", tuple(inputs), (("runs", runs.table),), "tensor", (rows, *shape[1:]))
        padding = self._vocabulary.padding
        if not padding or not self._vocabulary.mean_padding:
            return gathered
        text = ",".join(f"{first}:{end}" for first, end in padding)
        return self._graph.apply("mean_rows", (gathered,), (("rows", text),))

    def origin(self, node: Node) -> Origin | None:
        """The first tensor that a node is made from."""
        todo, seen = [node], set()
        while todo:
            n = todo.pop()
            if n.id in self._origins:
                return self._origins[n.id]
            if n.id not in seen:
                seen.add(n.id)
                todo.extend(reversed(n.inputs))
        return None
