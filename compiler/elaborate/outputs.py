"""Values for the tensors of the output: one node for each kind of tensor, what it reads for all
others of the kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import field
from typing import Any

from ...grammar.diagnostic import Diagnostic, Label, MergecError, finding
from ...grammar.records import dataclass
from ...grammar.source import Span
from ..checkpoint.bundles import codes_at
from ..checkpoint.catalog import Catalog
from ..checkpoint.documents import said_of
from ..checkpoint.dtypes import FLOATS, NAMES
from ..checkpoint.layouts import View
from ..checkpoint.model import Model
from ..evaluate.settings import Settings
from ..family.config_keys import config_value
from ..family.space import Coordinate, Space
from ..graph.graph import EquivalenceClass, Graph, Node, Output
from ..ops.shapes import shape_text
from ..terms.terms import Leaf, Where, has_adapter, is_region, models_in, where_of
from .absences import Absences
from .equivalence import RegionSignature, Sight, is_shared, read_twice
from .faults import Fault, Faults, Found, Retell, integers, with_label
from .instantiate import Instantiator
from .layer_origins import Sources
from .layer_shapes import LayerShapes
from .resize import common_shape
from .ties import KeptTie
from .vocabulary import Vocabulary

MOST_ERRORS = 50
"""Errors after which no more tensors are asked for: the rest would tell nothing new."""


@dataclass(slots=True, eq=False)
class ValueSource:
    """What gives tensors their value: statement `number`, or the template where none does (None).

    `names` are the tensors with their coordinates under its place; `counts` as in `Selection`.
    """

    number: int | None
    value: Any
    span: Span
    names: Mapping[str, Coordinate]
    counts: tuple[int, ...]
    signature: RegionSignature | None = None
    domain: tuple[Where, ...] | None = None
    kinds: dict[Hashable, OutputKind] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class OutputKind:
    """Tensors of one statement that are computed alike: the first of them, None where it went
    wrong, as they all do.

    `slots` are those of a tensor's `Sight.reads` that take the places of `equivalence.sources`.
    """

    first: Output | None
    position: int
    sight: Sight
    faults: Sequence[Found] = ()
    equivalence: EquivalenceClass | None = None
    slots: tuple[int, ...] = ()


class OutputBuilder:
    """Makes the outputs of `graph`, in the order in which they are asked for; what is wrong goes to
    `errors`."""

    def __init__(
        self,
        settings: Settings,
        vocabulary: Vocabulary | None,
        space: Space,
        kept: Sequence[KeptTie],
        errors: list[Diagnostic],
        catalog: Catalog,
        sources: Mapping[str, Sources],
    ) -> None:
        self.graph = Graph()
        self._shapes = LayerShapes(settings.template, space, sources)
        self._settings, self._vocabulary, self._space, self._errors = settings, vocabulary, space, errors
        self._catalog = catalog
        self._template = settings.template
        self._instantiator = Instantiator(
            self.graph,
            settings.seed,
            vocabulary,
            settings.template,
            kept,
            wide=settings.compute == "F64",
            resize=settings.resize,
        )
        self._faults = Faults(errors, space)
        self._hit: list[Found] = []
        self._givers: list[tuple[ValueSource, str] | None] = []

    @property
    def absences(self) -> Absences:
        """Which optional tensors models were found to lack."""
        return self._instantiator.absences

    def give(self, given: ValueSource, name: str) -> bool:
        """Adds an output tensor with its statement's value; False where that is wrong."""
        like = self._template.find(name)
        if like is not None and self._template.dtype(like[1]) not in FLOATS and self._equal(given, name):
            return True
        sight = self._sight(given, name)
        if sight is None:
            return self._give_alone(given, name) is not None
        stored = (like[1].shape, self._template.dtype(like[1])) if like is not None else None
        key = (stored, self._shapes.expected(name), self._template.family.vocabulary.get(name), sight.key)
        kind = given.kinds.get(key)
        if kind is None:
            position = len(self.graph.outputs)
            self._hit = []
            kind = given.kinds[key] = OutputKind(self._give_alone(given, name), position, sight, self._hit)
            return kind.first is not None
        first = kind.first
        if first is None:
            for fault in kind.faults:
                fault.names[name] = None
            return False
        if kind.equivalence is None:
            kind.equivalence, kind.slots = self._common(given, kind, first)
        if not kind.slots:
            # of numbers alone: it has the same node, and costs no more than that
            return self._give_alone(given, name) is not None
        self._append(given, _like(first, name, kind.equivalence, tuple([sight.reads[k] for k in kind.slots])))
        return True

    def try_untied(self, given: ValueSource, tie: KeptTie) -> None:
        """Collects what a tensor would get from adapters were it not tied (E0310), where what is
        stored is not that."""
        stored = next((o.node for o in self.graph.outputs if o.name == tie.other), None)
        if stored is None or not has_adapter(given.value):
            return
        dropped = self._instantiator.adapted.dropped
        dropped.clear()
        try:
            node = self._value(given, tie.name)
        except MergecError:
            return  # nothing asks for this value
        for diagnostic in dropped if node is not stored else ():
            self._report(diagnostic, tie.name)

    def again(self, name: str, other: str) -> bool:
        """Adds an output tensor with the value of another one; False where that is wrong."""
        found = next((k for k, output in enumerate(self.graph.outputs) if output.name == other), None)
        if found is None:
            return False
        self.graph.outputs.append(dataclasses.replace(self.graph.outputs[found], name=name))
        self._givers.append(self._givers[found])
        return True

    def copy(self, name: str, model: Model, view: View) -> None:
        """Adds an output tensor with what a model stores, whatever its dtype."""
        node = self._instantiator.tensors.stored(model, name, view)
        self.graph.outputs.append(Output(name, node, model.dtype(view), view.shape, None, self._template.span))
        self._givers.append(None)

    def tell(self) -> None:
        """Tells each error of all tensors at which it was found."""
        self._faults.finish()

    def finish(self) -> None:
        """Gives nodes of their own to outputs that read something which others read too, so that
        the graph can find what they share."""
        outputs = self.graph.outputs
        twice = read_twice(
            (o.node for o in outputs if o.equivalence is None),
            ((o.equivalence, o.reads) for o in outputs if o.equivalence is not None),
        )
        if not twice:
            return
        for k, output in enumerate(outputs):
            giver, like = self._givers[k], output.equivalence
            if giver is not None and like is not None and is_shared(like, output.reads, twice):
                node = self._value(*giver)
                outputs[k] = dataclasses.replace(output, node=node, equivalence=None, reads=())

    # --- one tensor

    def _equal(self, given: ValueSource, name: str) -> bool:
        """Adds an integer tensor of which all models that a statement reads hold the same; False
        where they don't.

        Counters and indices of that kind are no parameters, so there is nothing to compute.
        """
        if not is_region(given.value) or isinstance(given.value, Leaf):
            return False
        if given.signature is None:
            given.signature = RegionSignature(given.value, self._vocabulary, self._space.family)
        sight = given.signature.at(self._where(given, name))
        models = {model.number: model for model in models_in(given.value)}
        if sight is None or len(set(sight.models)) < 2 or not models.keys() >= set(sight.models):
            return False
        first, *rest = [(models[n], view) for n, view in zip(sight.models, sight.reads, strict=True)]
        if not all(_same(self._catalog, first, other) for other in rest):
            return False
        node = self._instantiator.tensors.stored(first[0], name, first[1])
        output = self._output(name, node, given.number, given.span)
        if output is not None:
            self._append(given, output)
        return output is not None

    def _sight(self, given: ValueSource, name: str) -> Sight | None:
        """What the value of a tensor depends on; None where it has to be made by itself."""
        if given.signature is None:
            if not is_region(given.value):
                return None
            given.signature = RegionSignature(given.value, self._vocabulary, self._space.family)
        if given.signature.shared or given.signature.adapted:
            return None
        # what is brought to another size is put together of several tensors
        if self._settings.resize != "error":
            return self._of_one_size(given.signature, name)
        if given.signature.plain:
            return given.signature.at_name(name)
        try:
            return given.signature.at(self._where(given, name))
        except RecursionError:
            return None  # making it says so

    def _of_one_size(self, signature: RegionSignature, name: str) -> Sight | None:
        """What a value depends on of which no tensor has to be resized."""
        sight = signature.at_name(name) if signature.plain else None
        like = self._template.find(name)
        shapes = {view.shape for view in sight.reads} if sight is not None else set()
        return sight if like is not None and shapes == {like[1].shape} else None

    def _common(self, given: ValueSource, kind: OutputKind, first: Output) -> tuple[EquivalenceClass, tuple[int, ...]]:
        """What the tensors of a kind have in common, once there are two of them; enters it for the
        first too."""
        assert given.signature is not None
        equivalence, slots = given.signature.equivalence(first.node, kind.sight, first.name, self._settings.seed)
        if slots:
            reads = tuple([kind.sight.reads[k] for k in slots])
            self.graph.outputs[kind.position] = _like(first, first.name, equivalence, reads)
        return equivalence, slots

    def _give_alone(self, given: ValueSource, name: str) -> Output | None:
        """Adds an output made by itself; None where it is wrong."""
        if len(self._errors) > MOST_ERRORS:
            return None
        try:
            node = self._value(given, name)
        except MergecError as error:
            retell = error.retell if isinstance(error, Fault) else None
            for diagnostic in error.diagnostics:
                labels = diagnostic.labels
                inside = any(given.span.start <= label.span.start < given.span.end for label in labels)
                if labels and not inside:
                    needed = Label(given.span, "needed here")
                    diagnostic = dataclasses.replace(diagnostic, labels=(*labels, needed))
                    retell = with_label(retell, needed) if retell is not None else None
                self._report(diagnostic, name, retell)
            return None
        output = self._output(name, node, given.number, given.span)
        if output is not None:
            self._append(given, output)
        return output

    def _append(self, given: ValueSource, output: Output) -> None:
        self.graph.outputs.append(output)
        self._givers.append((given, output.name))

    def _value(self, given: ValueSource, name: str) -> Node:
        """The node of a tensor's value. Raises MergecError."""
        make = self._instantiator
        if given.domain is None:
            given.domain = self._domain(given) if given.signature is not None and given.signature.shared else ()
        make.domain = given.domain
        return make.root(given.value, self._where(given, name), given.span)

    def _domain(self, given: ValueSource) -> tuple[Where, ...]:
        """The float tensors that a statement gives a value to: what a number of the whole model is
        over."""
        return tuple([self._where(given, name) for name in given.names if self._is_float(name)])

    def _is_float(self, name: str) -> bool:
        like = self._template.find(name)
        return like is None or self._template.dtype(like[1]) in FLOATS

    def _where(self, given: ValueSource, name: str) -> Where:
        return where_of(self._space, given.names, given.counts, name)

    def _report(self, diagnostic: Diagnostic, name: str, retell: Retell | None = None) -> None:
        """Collects an error, once per code and place: a wrong statement goes wrong at many
        tensors."""
        self._hit.append(self._faults.report(diagnostic, name, retell))

    def _output(self, name: str, node: Node, statement: int | None, span: Span) -> Output | None:
        """The output of this value, brought to the tensor's shape; None where it is wrong."""
        like = self._template.find(name)
        expected = self._shapes.expected(name)
        axis = self._template.family.vocabulary.get(name)
        if node.shape is None:
            if like is None:
                message = f"a plain number can't tell the shape of `{name}`"
                help = f'give it a tensor: `"{name}" = …`'
                self._report(finding("E0307", message, span, "a number", help=help), name)
                return None
            node = self.graph.add("fill", (node,), (), "tensor", like[1].shape)
        elif node.kind == "mask":
            node = self.graph.apply("number", (node,))
        assert node.shape is not None
        if expected is not None and node.shape != expected:
            fits = (
                axis is not None
                and len(node.shape) == len(expected)
                and all(a == b for k, (a, b) in enumerate(zip(node.shape, expected, strict=True)) if k != axis)
            )
            if self._shapes.allows(name, node.shape):
                fits = True
            if self._settings.resize == "common" and common_shape((node.shape, expected)) == node.shape:
                fits = True
            if not fits:
                self._report(
                    Diagnostic(
                        "E0307",
                        f"`{name}` is {shape_text(expected)} in the template and {shape_text(node.shape)} here",
                        (
                            Label(span, f"{shape_text(node.shape)}"),
                            Label(self._template.span, f"{shape_text(expected)}"),
                        ),
                        help=("take the shape from another model: `output(like=…)`",),
                    ),
                    name,
                )
                return None
        dtype = self._dtype(node, like)
        if dtype not in FLOATS and node.op != "source":
            codes, retell = self._of_codes(node, like, span), integers(self._template, dtype, span)
            self._report(codes or retell((name,), self._space), name, None if codes else retell)
            return None
        return Output(name, node, dtype, node.shape, statement, span)

    def _of_codes(self, node: Node, like: tuple[str, View] | None, span: Span) -> Diagnostic | None:
        """The error for a value that is made of codes, or that takes the place of codes; None where
        it does neither."""
        origin = self._instantiator.tensors.origin(node)
        found = origin.model.find(origin.name) if origin is not None else None
        for model, view in ((origin.model if origin is not None else None, found), (self._template, like)):
            codes = codes_at(model.bundles, view[1].stored) if model is not None and view is not None else None
            if model is not None and view is not None and codes is not None:
                stored = view[1].stored
                if view is found:
                    return codes.computed(model.label, model.span, stored, model.dtype(view[1]), span)
                return codes.replaced(model.label, model.span, stored, span)
        return None

    def _dtype(self, node: Node, like: tuple[str, View] | None) -> str:
        """The setting for floats, else the template's, else that of the first source."""
        origin = self._instantiator.tensors.origin(node)
        first = origin.dtype if origin is not None else None
        stored = self._template.dtype(like[1]) if like is not None else first
        if first is not None and first not in FLOATS:
            return first
        if self._settings.dtype is not None and (stored is None or stored in FLOATS):
            return self._settings.dtype
        if stored is None:
            return NAMES.get(str(config_value(self._template.config, "dtype")), "F32")
        return stored


def _same(catalog: Catalog, one: tuple[Model, View], other: tuple[Model, View]) -> bool:
    """Whether two models hold the same tensor."""
    stored = [model.checkpoint.tensors[view.stored] for model, view in (one, other)]
    if (stored[0].dtype, stored[0].shape) != (stored[1].dtype, stored[1].shape) or one[1].shape != other[1].shape:
        return False
    if any(view.shape != tensor.shape for (_, view), tensor in zip((one, other), stored, strict=True)):
        return False
    with said_of(other[0]):
        found = catalog.same_bytes(one[0].checkpoint, one[1].stored, other[1].stored, other=other[0].checkpoint)
    return found is True


def _like(first: Output, name: str, equivalence: EquivalenceClass, reads: tuple[View, ...]) -> Output:
    return Output(name, first.node, first.dtype, first.shape, first.statement, first.span, equivalence, reads)
