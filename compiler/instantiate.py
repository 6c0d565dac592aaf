"""Asks a term for one tensor: the graph node that is its value there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from ..grammar.diagnostic import Diagnostic, Label, MergecError
from ..grammar.source import Span
from .absences import Absences
from .adapted import Adapted
from .dtypes import FLOATS
from .graph import Graph, Node, StoredRange
from .layouts import View
from .lifting import as_region
from .models import Model
from .moves import mapped_name, moved
from .ops import OPS
from .presence import exists, matching
from .randomness import mask_key
from .resize import common_shape, units
from .scalars import SCALARS
from .shapes import elements
from .terms import (
    Among,
    Apply,
    Assembly,
    At,
    Choice,
    Leaf,
    Lora,
    Number,
    Region,
    Stack,
    Tie,
    Where,
    is_region,
    leaves,
    owners,
    walk,
)
from .varying import resolve
from .vocabulary import Vocabulary
from .whole import part_node, whole_node
from .whole_model import WHOLE_MODEL, across, model_threshold

MAX_DEPTH = 600
"""Nesting of operations in one expression; deeper is refused instead of exhausting the interpreter's stack."""


class Instantiator:
    """Makes nodes in `graph` for terms at places; every (term, place) pair once."""

    def __init__(
        self, graph: Graph, seed: int, vocabulary: Vocabulary | None, template: Model, *, wide: bool, resize: str
    ) -> None:
        self.graph, self.seed, self.vocabulary, self.wide = graph, seed, vocabulary, wide
        self.adapted = Adapted(graph, template, vocabulary)
        self.template, self.resize = template, resize
        self._root: Region | None = None
        self.domain: tuple[Where, ...] = ()
        self._models: dict[tuple[int, int], tuple[Node, Apply]] = {}
        self._sources: dict[int, tuple[Model, str, str]] = {}
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
        self._root = value
        self._memo.clear()
        self._alive.clear()
        self._depth = 0
        try:
            return self.node(value, where)
        except RecursionError:
            raise MergecError(
                Diagnostic("E0211", "this expression is nested too deeply", (Label(span, "here"),))
            ) from None

    def node(self, term: Region, where: Where) -> Node:
        key = (id(term), id(where))
        found = self._memo.get(key)
        if found is None:
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise MergecError(
                    Diagnostic("E0211", "this expression is nested too deeply", (Label(term.span, "here"),))
                )
            found = self._make(term, where)
            self._depth -= 1
            self._memo[key] = found
            self._alive.append((term, where))  # so that their ids stay theirs
        return found

    def _make(self, term: Region, where: Where) -> Node:
        if isinstance(term, Leaf):
            return self._leaf(term, where)
        if isinstance(term, Lora):
            return self.adapted.delta(term, where.name)
        if isinstance(term, Number):
            return self._number(term.value, where, term.span)
        if isinstance(term, Apply):
            return self._apply(term, where)
        if isinstance(term, Choice):
            return self.node(term.then if resolve(term.condition, where) else term.other, where)
        if isinstance(term, Among):
            return self._among(term, where)
        if isinstance(term, At | Stack | Assembly):
            return self.node(*moved(term, where))
        assert isinstance(term, Tie)
        raise MergecError(
            Diagnostic(
                "E0312", "`tie` stands alone on the right of a place", (Label(term.span, "not inside an expression"),)
            )
        )

    def _number(self, value: Any, where: Where, span: Span) -> Node:
        number = resolve(value, where)
        if isinstance(number, bool):
            return self.graph.const(1.0 if number else 0.0)
        if not isinstance(number, int | float):
            raise MergecError(Diagnostic("E0208", "this is not a number at every tensor", (Label(span),)))
        return self.graph.const(float(number))

    # --- leaves

    def _leaf(self, term: Leaf, where: Where) -> Node:
        model, name = term.model, where.name
        if not exists(term, where, resolve):
            self.absences.count_as_zero(model, term.span, where.output)
            return self.graph.const(0.0)
        if term.path is not None:
            name = mapped_name(term, term.path, term.span, where)
        return self.source(model, name, term.span, where)

    def _among(self, term: Among, where: Where) -> Node:
        """The function's value for those of its models that have the tensor."""
        present = tuple([i for i, m in enumerate(term.models) if exists(m, where, resolve)])
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
        """The value for some of the models. Raises MergecError (E0470) where it takes numbers of the whole model."""
        names = ", ".join(f"`{m.label or 'an expression'}`" for m in absent)
        note = f"without {names}, which {'lacks' if len(absent) == 1 else 'lack'} the optional `{where.output}`"
        mend = f'give that place a value of its own: `"{where.output}" = …`'
        if any(isinstance(t, Apply) and t.op in WHOLE_MODEL for t in walk(term.full)):
            raise MergecError(
                Diagnostic(
                    "E0470",
                    f"`{term.function}` takes numbers of the whole model, and not all of its models have all of it",
                    (Label(term.span, f"{names} can't drop out for single tensors"),),
                    (note,),
                    (mend,),
                )
            )
        try:
            return term.again(present)
        except MergecError as error:
            raise MergecError(
                [dataclasses.replace(d, notes=(*d.notes, note), help=(*d.help, mend)) for d in error.diagnostics]
            ) from None

    def source(self, model: Model, name: str, span: Span, where: Where) -> Node:
        """A tensor of a model: rows gathered where the vocabulary is reconciled, a range of a stored tensor else."""
        found = model.find(name)
        if found is None:
            at = model.space.layer_of(name)
            depth = model.space.depths.get(at[0].name, 0) if at else 0
            if at is not None and at[1] >= depth:
                raise MergecError(
                    Diagnostic(
                        "E0306",
                        f"`{model.label}` has no layer {at[1]}",
                        (Label(span, f"{depth} layers, 0 to {depth - 1}"),),
                        help=(f"layers of another number are picked so: `{model.label}.{at[0].name}[…]`",),
                    )
                )
            raise MergecError(
                Diagnostic(
                    "E0306",
                    f"`{model.label}` has no tensor for `{where.output}`",
                    (Label(model.span, f"no `{name}` among its {len(model.tensors)} tensors"),),
                    help=(f'leave it to another model: `"{where.output}" = …` in a later statement',),
                )
            )
        stored_name, view = found
        if self.vocabulary is not None and name in model.family.vocabulary and model.family.vocabulary[name] == 0:
            return self._gather(model, name, view.shape)
        node = self._stored(model, stored_name, view)
        target = self._target(where) if self.resize != "error" and model.dtype(view) in FLOATS else None
        if target is None or target == view.shape or len(target) != len(view.shape):
            return node
        width, runs = units(view.shape, target)
        inputs = [node]
        if any(source for _, terms in runs for source, _ in terms):
            own = self.template.find(where.output)
            assert own is not None
            inputs.append(self._stored(self.template, *own))
        return self.graph.add("gather", tuple(inputs), (("runs", runs), ("width", width)), "tensor", target)

    def _stored(self, model: Model, name: str, view: View) -> Node:
        dtype = model.dtype(view)
        place = StoredRange(model.number, view.stored, dtype, view.first)
        node = self.graph.add("source", (), (("range", place),), "tensor", view.shape)
        self._sources.setdefault(node.id, (model, name, dtype))
        return node

    def _target(self, where: Where) -> tuple[int, ...] | None:
        """The shape that the tensors of the statement are brought to at an output tensor."""
        if self.resize == "base":
            own = self.template.find(where.output)
            return own[1].shape if own is not None else None
        shapes = []
        for leaf in leaves(self._root) if self._root is not None else ():
            name = where.name if leaf.path is None else matching(leaf.model.space.select(leaf.path), where)
            found = leaf.model.find(name) if name is not None else None
            shapes.extend([found[1].shape] if found is not None else [])
        return common_shape(shapes)

    def _gather(self, model: Model, name: str, shape: tuple[int, ...]) -> Node:
        assert self.vocabulary is not None
        inputs, runs, whole = [], self.vocabulary.runs(model), []
        for other in runs.models:
            found = other.find(name)
            if found is None:
                raise MergecError(
                    Diagnostic("E0311", f"`{other.label}` has no `{name}` to take rows from", (Label(other.span),))
                )
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
            dtype = other.dtype(view)
            place = StoredRange(other.number, view.stored, dtype, view.first)
            source = self.graph.add("source", (), (("range", place),), "tensor", view.shape)
            self._sources.setdefault(source.id, (other, found[0], dtype))
            inputs.append(source)
            whole.append(view.shape[0])
        if len(inputs) == 1 and runs.is_identity(whole[0]):
            return inputs[0]
        rows = self.vocabulary.size
        gathered = self.graph.add("gather", tuple(inputs), (("runs", runs.table),), "tensor", (rows, *shape[1:]))
        padding = self.vocabulary.padding
        if not padding or not self.vocabulary.mean_padding:
            return gathered
        text = ",".join(f"{first}:{end}" for first, end in padding)
        return self.graph.apply("mean_rows", (gathered,), (("rows", text),))

    def first_dtype(self, node: Node) -> str | None:
        """The stored dtype of the first tensor that a node is made from."""
        todo, seen = [node], set()
        while todo:
            n = todo.pop()
            if n.id in self._sources:
                return self._sources[n.id][2]
            if n.id not in seen:
                seen.add(n.id)
                todo.extend(reversed(n.inputs))
        return None

    # --- operations

    def _apply(self, term: Apply, where: Where) -> Node:
        if term.op == "bernoulli":
            return self._bernoulli(term, where)
        if term.op == "where":
            # where the choice is known, the other branch may be an operation that this shape doesn't allow
            known = self._constant(self.node(term.args[0], where))
            if known is not None:
                return self._plain(self.node(term.args[1 if known else 2], where))
        if term.op == "add" and any(isinstance(a, Lora) for a in term.args):
            return self._with_adapter(term, where)
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
            self._arithmetic(term, nodes)
        if row.kind == "opaque" or term.op == "installed":
            return whole_node(self.graph, term, tuple(self._plain(n) for n in nodes), self._constant)
        if row.kind == "reduction":
            return self._reduction(term, nodes)
        if row.kind == "scalar" and any(n.shape is not None for n in nodes):
            raise MergecError(
                Diagnostic("E0208", "this needs numbers, not tensors", (Label(term.span, "a tensor among them"),))
            )
        if term.op in ("and", "or", "not") or term.op == "where":
            # conditions: a number is a condition too (non-zero)
            first = nodes if term.op != "where" else nodes[:1]
            fixed = tuple(self._condition(n) for n in first)
            nodes = fixed if term.op != "where" else (*fixed, *(self._plain(n) for n in nodes[1:]))
        else:
            nodes = tuple(self._plain(n) for n in nodes)
        # a number that the recipe gives; zeros that follow from the tensors are divided by as IEEE has it
        if term.op == "div" and isinstance(term.args[1], Number) and self._constant(nodes[1]) == 0:
            raise MergecError(
                Diagnostic(
                    "E0216", "this divides by zero", (Label(term.span, "division by zero"),), (f"at `{where.output}`",)
                )
            )
        if "row" not in row.attributes:
            return self._known(self.graph.apply(term.op, nodes))
        shape = nodes[0].shape
        if shape is None:
            if self._constant(nodes[0]) == 0:
                return nodes[0]
            raise MergecError(Diagnostic("E0208", "a number has no rows", (Label(term.span, "a number here"),)))
        # a tensor of one axis is a single row
        return self.graph.apply(term.op, nodes, (("row", shape[-1] if len(shape) > 1 else elements(shape)),))

    def _with_adapter(self, term: Apply, where: Where) -> Node:
        """`model + lora(…)`; an adapter on something without a model is only what it adds."""
        other, lora = term.args if isinstance(term.args[1], Lora) else term.args[::-1]
        assert isinstance(lora, Lora)
        node, found = self._plain(self.node(other, where)), owners(other)
        if not found:
            return self.graph.apply("add", (node, self.adapted.delta(lora, where.name)))
        made = self.adapted.applied(lora, node, found[0].model, where.name)
        if made is not node:
            self._arithmetic(term, (node,))
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
        """The node, after noting its value if that is arithmetic on constants, such as a tensor's size."""
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
            raise MergecError(
                Diagnostic("E0208", "this needs a tensor, not a number", (Label(term.span, "a number here"),))
            )
        if term.op != "count":
            nodes = tuple(self._plain(n) for n in nodes)
        elif nodes[0].kind != "mask":
            nodes = (self._condition(nodes[0]),)
        return self.graph.apply(term.op, nodes)

    def _topk(self, term: Apply, nodes: tuple[Node, ...]) -> Node:
        x, density = nodes
        known = self._constant(density)
        if known is None:
            raise MergecError(
                Diagnostic("E0218", "a density can't depend on the weights", (Label(term.args[1].span, "a region"),))
            )
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
            where = Label(term.args[odd].span, f"this is {what}")
            raise MergecError(Diagnostic("E0208", "`rank_mask` takes a tensor and a number", (where,)))
        known = self._constant(count)
        if known is None:
            self._arithmetic(term, (x,))
            x = self._plain(x)
            return self.graph.apply("above", (x, self.graph.apply("threshold_at", (x, count))))
        n = elements(x.shape or ())
        return self._largest(term, x, 0 if math.isnan(known) else int(min(max(known, 0), n)))

    def _largest(self, term: Apply, x: Node, k: int) -> Node:
        """Which k elements of a tensor are largest in magnitude."""
        n = elements(x.shape or ())
        if k <= 0 or k >= n:
            return self.graph.const(0.0 if k <= 0 else 1.0)
        self._arithmetic(term, (x,))
        x = self._plain(x)
        threshold = self.graph.apply("threshold", (x,), (("k", k),))
        return self.graph.apply("above", (x, threshold))

    def _quantile(self, term: Apply, nodes: tuple[Node, ...]) -> Node:
        x, q = nodes
        share = self._constant(q)
        if share is None:
            raise MergecError(
                Diagnostic("E0218", "`q` can't depend on the weights", (Label(term.args[1].span, "a region"),))
            )
        if not 0 <= share <= 1:
            raise MergecError(
                Diagnostic("E0209", f"`q` of `quantile` is {share:g}", (Label(term.args[1].span, "not from 0 to 1"),))
            )
        if x.shape is None:
            return self._reduction(Apply("minimum", term.args[:1], term.span), (x,))
        if not elements(x.shape):
            return self.graph.const(0.0)
        self._arithmetic(term, (x,))
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
            self._arithmetic(term, (self.node(model, where), probability))
        return self.graph.add("bernoulli", (probability,), (("key", key),), "mask", shape)

    def _arithmetic(self, term: Apply, nodes: tuple[Node, ...]) -> None:
        """Shapes must agree and integers may not be computed with (E0307, E0311, E0309)."""
        tensors = [(a, n) for a, n in zip(term.args, nodes, strict=False) if n.shape is not None]
        for _, n in tensors:
            if n.op == "source" and n.attribute("range").dtype not in FLOATS:
                model, name, dtype = self._sources[n.id]
                raise MergecError(
                    Diagnostic(
                        "E0309",
                        f"`{name}` of `{model.label}` is {dtype} and may only be copied",
                        (Label(term.span, "arithmetic on integers"),),
                        help=(f'copy it from one model: `"{name}" = {model.label}`',),
                    )
                )
        if len({n.shape for _, n in tensors}) < 2:
            return
        (_, first), (_, second) = tensors[0], next(t for t in tensors if t[1].shape != tensors[0][1].shape)
        origin, other = self._origin(first), self._origin(second)
        labels = [Label(term.span, "shapes meet here")]
        notes = [f"{text} is {shape_text(n.shape or ())}" for (_, text), n in ((origin, first), (other, second))]
        labels += [
            Label(m.span, f"has {shape_text(n.shape or ())}") for (m, _), n in ((origin, first), (other, second)) if m
        ]
        owner = origin[0]
        vocabulary = owner is not None and self._sources[self._first(first)][1] in owner.family.vocabulary
        if vocabulary and (first.shape or ())[1:] != (second.shape or ())[1:]:
            vocabulary = False
        raise MergecError(
            Diagnostic(
                "E0311" if vocabulary else "E0307",
                "the vocabularies differ" if vocabulary else "the shapes differ",
                tuple(labels),
                notes=tuple(notes),
                help=("say how to reconcile them: `output(tokenizer=…)`, a model or `union(a, b)`",)
                if vocabulary
                else ('cut or fill what differs: `output(resize="base")`, or `"common"`',)
                if len(first.shape or ()) == len(second.shape or ())
                else (),
            )
        )

    def _first(self, node: Node) -> int:
        todo = [node]
        while todo:
            n = todo.pop()
            if n.id in self._sources:
                return n.id
            todo.extend(reversed(n.inputs))
        return -1

    def _origin(self, node: Node) -> tuple[Model | None, str]:
        found = self._sources.get(self._first(node))
        return (found[0], f"`{found[1]}` of `{found[0].label}`") if found else (None, "the result")


def shape_text(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(n) for n in shape) + "]"
