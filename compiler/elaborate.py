"""Terms to graph nodes: which statement gives each output tensor its value, and what that value is.

The output's tensors (`outline.py`), which statement covers them (`coverage.py`), its ties (`output_ties.py`) and
where its layers come from (`layer_sources.py`) are settled first; then each statement's term is asked for each tensor
that it covers. All errors that can be found are collected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..grammar.diagnostic import Diagnostic, Label, MergecError, Severity
from ..grammar.source import Span
from .aliases import config_value
from .coverage import Covering, coverings, owners, shadowed, uncovered, unused
from .dtypes import FLOATS, NAMES
from .evaluate import Recipe
from .graph import Graph, Node, Output
from .instantiate import Instantiator, shape_text
from .layer_sources import Sources, layer_sources
from .layouts import View
from .models import Model
from .outline import outline
from .output_ties import output_ties
from .places import Coordinate, Space
from .resize import common_shape
from .settings import Settings
from .terms import Leaf, Where
from .vocabulary import Vocabulary

MOST_ERRORS = 50
"""Errors after which no more tensors are asked for: the rest would tell nothing new."""


@dataclass(slots=True, eq=False)
class Elaboration:
    """The graph and everything that the files around the weights need to know.

    `ties` maps each output name that is not stored to the name it shares; `copied` are names that no statement
    covered, taken from the template. `layer_sources` says for each stack which (model, layer) each output layer came
    from.
    """

    graph: Graph
    template: Model
    models: tuple[Model, ...]
    space: Space
    ties: dict[str, str]
    covered: dict[int, list[str]]
    copied: list[str]
    layer_sources: dict[str, Sources]
    vocabulary: Vocabulary | None
    diagnostics: list[Diagnostic] = field(default_factory=list)


def elaborate(recipe: Recipe, settings: Settings, vocabulary: Vocabulary | None) -> Elaboration:
    """Builds the graph of a recipe whose statements are evaluated. Raises MergecError with every error found."""
    return _Elaborator(recipe, settings, vocabulary).run()


class _Elaborator:
    def __init__(self, recipe: Recipe, settings: Settings, vocabulary: Vocabulary | None) -> None:
        self.recipe, self.settings, self.vocabulary = recipe, settings, vocabulary
        self.template = settings.template
        self.graph = Graph()
        self.space, self.errors = outline(recipe, settings)

    def run(self) -> Elaboration:
        found, wrong = coverings(self.recipe, self.space)
        owner = owners(found)
        warnings = shadowed(found, owner)
        ties, wrong_ties = output_ties(self.template, self.space, owner)
        sources, unfit = layer_sources(self.settings, self.space, found, owner)
        self.errors += [*wrong, *wrong_ties, *(d for diagnostics in unfit.values() for d in diagnostics)]
        covered: dict[int, list[str]] = {c.assignment.number: [] for c in found}
        copied: list[str] = []
        missing: list[str] = []
        make = Instantiator(
            self.graph,
            self.settings.seed,
            self.vocabulary,
            self.template,
            wide=self.settings.compute == "F64",
            resize=self.settings.resize,
        )
        self.domains = self.domains_of(found, owner, ties)
        for name in self.space.names:
            if name in ties:
                continue
            source = owner.get(name)
            if source is not None:
                # what a statement gets wrong as a whole, it need not get wrong tensor by tensor
                if source.assignment.number not in unfit and self.give(make, name, source):
                    covered[source.assignment.number].append(name)
            elif self.settings.template_named and self.template.find(name):
                self.fill(make, name)
                copied.append(name)
            else:
                missing.append(name)
        if missing:
            self.errors.append(uncovered(self.recipe, self.settings, self.space, missing))
        if not self.errors:
            for diagnostic in unused(self.recipe, self.settings, self.space, self.graph):
                (self.errors if diagnostic.severity is Severity.ERROR else warnings).append(diagnostic)
        if self.errors:
            raise MergecError([*self.errors, *warnings])
        warnings += make.absences.warnings(self.space)
        return Elaboration(
            self.graph,
            self.template,
            tuple(self.recipe.models),
            self.space,
            ties,
            covered,
            copied,
            sources,
            self.vocabulary,
            warnings,
        )

    def domains_of(
        self, found: Sequence[Covering], owner: Mapping[str, Covering], ties: Mapping[str, str]
    ) -> dict[int, tuple[Where, ...]]:
        """For each statement the float tensors that it gives a value to: what a number of the whole model is over."""
        out: dict[int, tuple[Where, ...]] = {}
        for covering in found:
            names = [n for n in covering.names if owner[n] is covering and n not in ties]
            places = [(n, covering.names[n]) for n in names if self.is_float(n)]
            out[covering.assignment.number] = tuple([self.where(n, at, covering.counts) for n, at in places])
        return out

    def is_float(self, name: str) -> bool:
        like = self.template.find(name)
        return like is None or self.template.dtype(like[1]) in FLOATS

    def where(self, name: str, coordinate: Coordinate, counts: tuple[int, ...]) -> Where:
        at = self.space.layer_of(name)
        stacks = list(self.space.depths.values())
        layers = self.space.depths.get(at[0].name, 0) if at else (stacks[0] if stacks else 0)
        return Where(name, coordinate, counts, self.space, at[1] if at else None, layers, name)

    def give(self, make: Instantiator, name: str, covering: Covering) -> bool:
        """Adds an output tensor with its statement's value; False where that is wrong."""
        assignment = covering.assignment
        if len(self.errors) > MOST_ERRORS:
            return False
        try:
            where = self.where(name, covering.names[name], covering.counts)
            make.domain = self.domains[assignment.number]
            node = make.root(assignment.value, where, assignment.statement.value.span)
        except MergecError as error:
            span = assignment.statement.value.span
            for diagnostic in error.diagnostics:
                labels = diagnostic.labels
                if labels and not any(span.start <= label.span.start < span.end for label in labels):
                    diagnostic = dataclasses.replace(diagnostic, labels=(*labels, Label(span, "needed here")))
                self.report(diagnostic)
            return False
        self.output(make, name, node, assignment.number, assignment.statement.value.span)
        return True

    def fill(self, make: Instantiator, name: str) -> None:
        where = self.where(name, ((), name), ())
        try:
            node = make.root(Leaf(self.template, None, self.template.span), where, self.template.span)
        except MergecError as error:
            self.errors.extend(error.diagnostics)
            return
        self.output(make, name, node, None, self.template.span)

    def report(self, diagnostic: Diagnostic) -> None:
        """Collects an error, once a code and place: a wrong statement goes wrong at many tensors."""
        where = diagnostic.labels[0].span if diagnostic.labels else None
        if not any(d.code == diagnostic.code and d.labels and d.labels[0].span == where for d in self.errors):
            self.errors.append(diagnostic)

    def output(self, make: Instantiator, name: str, node: Node, statement: int | None, span: Span) -> None:
        like = self.template.find(name)
        expected = like[1].shape if like is not None else None
        axis = self.template.family.vocabulary.get(name)
        if node.shape is None:
            if expected is None:
                self.report(
                    Diagnostic("E0307", f"a plain number can't tell the shape of `{name}`", (Label(span, "a number"),))
                )
                return
            node = self.graph.add("fill", (node,), (), "tensor", expected)
        elif node.kind == "mask":
            node = self.graph.apply("number", (node,))
        assert node.shape is not None
        if expected is not None and node.shape != expected:
            fits = (
                axis is not None
                and len(node.shape) == len(expected)
                and all(a == b for k, (a, b) in enumerate(zip(node.shape, expected, strict=True)) if k != axis)
            )
            if self.settings.resize == "common" and common_shape((node.shape, expected)) == node.shape:
                fits = True
            if not fits:
                self.report(
                    Diagnostic(
                        "E0307",
                        f"`{name}` is {shape_text(expected)} in the template and {shape_text(node.shape)} here",
                        (
                            Label(span, f"{shape_text(node.shape)}"),
                            Label(self.template.span, f"{shape_text(expected)}"),
                        ),
                        help=("take the shape from another model: `output(like=…)`",),
                    )
                )
                return
        dtype = self.dtype(make, node, like)
        if dtype not in FLOATS and node.op != "source":
            self.report(
                Diagnostic(
                    "E0309",
                    f"`{name}` is {dtype} and may only be copied",
                    (Label(span, "arithmetic on integers"),),
                    help=(f'copy it from one model: `"{name}" = {self.template.label}`',),
                )
            )
            return
        self.graph.outputs.append(Output(name, node, dtype, node.shape, statement, span))

    def dtype(self, make: Instantiator, node: Node, like: tuple[str, View] | None) -> str:
        """The setting for floats, else the template's, else that of the first source."""
        stored = self.template.dtype(like[1]) if like is not None else make.first_dtype(node)
        first = make.first_dtype(node)
        if first is not None and first not in FLOATS:
            return first
        if self.settings.dtype is not None and (stored is None or stored in FLOATS):
            return self.settings.dtype
        if stored is None:
            return NAMES.get(str(config_value(self.template.config, "dtype")), "F32")
        return stored
