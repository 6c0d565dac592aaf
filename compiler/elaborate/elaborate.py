"""Terms to graph nodes: which statement gives each output tensor its value, and what that value is.

The output's tensors (`outline.py`), which statement covers them (`coverage.py`), its ties
(`ties.py`) and where its layers come from (`layer_origins.py`) are settled first; then each
statement's term is asked for each tensor that it covers. All errors that can be found are
collected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from ...grammar.diagnostic import Diagnostic, MergecError, Severity
from ...grammar.records import dataclass
from ..checkpoint.catalog import Catalog, Part
from ..checkpoint.image_models import check_one_form
from ..checkpoint.model import Model
from ..evaluate.parts import left_parts
from ..evaluate.settings import Settings
from ..evaluate.statements import Recipe
from ..family.space import Space
from ..graph.graph import Graph
from ..terms.terms import Leaf, Tie
from .buffers import buffers_of
from .coverage import Covering, coverings, owners, shadowed, uncovered, unused
from .duplicates import output_duplicates
from .layer_origins import Sources, layer_sources
from .outline import outline
from .outputs import OutputBuilder, ValueSource
from .ties import ended_together, output_ties
from .vocabulary import Vocabulary


@dataclass(slots=True, eq=False)
class Elaboration:
    """The graph and everything that the files around the weights need to know.

    `ties` maps each output name that is not stored to the name it shares; `copied` are names that
    no statement covered, taken from the template. `layer_sources` says for each stack which (model,
    layer) each output layer came from. `left` are parts of the template that are copied as they
    are.
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
    left: tuple[Part, ...] = ()
    diagnostics: list[Diagnostic] = field(default_factory=list)


def elaborate(recipe: Recipe, settings: Settings, vocabulary: Vocabulary | None, catalog: Catalog) -> Elaboration:
    """Builds the graph of a recipe whose statements are evaluated. Raises MergecError with every
    error found."""
    return _Elaborator(recipe, settings, vocabulary, catalog).run()


class _Elaborator:
    def __init__(self, recipe: Recipe, settings: Settings, vocabulary: Vocabulary | None, catalog: Catalog) -> None:
        self.recipe, self.settings, self.vocabulary, self.catalog = recipe, settings, vocabulary, catalog
        self.template = settings.template
        check_one_form(recipe.models)
        self.left, self.told = left_parts(recipe, self.template)
        self.space, self.errors = outline(recipe, settings, self.left)

    def run(self) -> Elaboration:
        found, wrong = coverings(self.recipe, self.space)
        owner = owners(found)
        warnings = [*self.told, *shadowed(found, owner)]
        ties, kept, wrong_ties = output_ties(self.template, self.space, owner, self.vocabulary)
        ended = ended_together(self.template, self.space, ties)
        ties = {name: other for name, other in ties.items() if name not in ended}
        sources, unfit = layer_sources(self.settings, self.space, found, owner)
        self.errors += [*wrong, *wrong_ties, *(d for diagnostics in unfit.values() for d in diagnostics)]
        covered: dict[int, list[str]] = {c.assignment.number: [] for c in found}
        copied: list[str] = []
        missing: list[str] = []
        duplicates = ended | output_duplicates(self.template, self.space, owner, ties, self.vocabulary)
        make = OutputBuilder(self.settings, self.vocabulary, self.space, kept, self.errors, self.catalog, sources)
        given = {id(c): self.statement(c, owner, {**ties, **duplicates}) for c in found}
        rest = ValueSource(None, Leaf(self.template, None, self.template.span), self.template.span, {}, ())
        for name in self.space.names:
            if name in ties or name in duplicates:
                continue
            source = owner.get(name)
            if source is not None:
                # what a statement gets wrong as a whole, it need not get wrong tensor by tensor
                wrong_tie = wrong_ties and isinstance(source.assignment.value, Tie)
                if wrong_tie or source.assignment.number in unfit:
                    continue
                if make.give(given[id(source)], name):
                    covered[source.assignment.number].append(name)
            elif self.settings.template_named and self.template.find(name):
                make.give(rest, name)
                copied.append(name)
            else:
                missing.append(name)
        for tie in kept:
            if tie.name == tie.alias:
                make.try_untied(self.statement(tie.covering, owner, {}), tie)
        for name, other in duplicates.items():
            if make.again(name, other):
                source = owner.get(name)
                (covered[source.assignment.number] if source is not None else copied).append(name)
        for name, model, view in buffers_of(self.template, self.space, sources):
            make.copy(name, model, view)
            copied.append(name)
        if missing:
            self.errors.append(uncovered(self.recipe, self.settings, self.space, missing))
        if not self.errors:
            make.finish()
            for diagnostic in unused(self.recipe, self.settings, self.space, make.graph, self.left):
                (self.errors if diagnostic.severity is Severity.ERROR else warnings).append(diagnostic)
        make.tell()
        if self.errors:
            raise MergecError([*self.errors, *warnings])
        warnings += make.absences.warnings(self.space)
        return Elaboration(
            make.graph,
            self.template,
            tuple(self.recipe.models),
            self.space,
            ties,
            covered,
            copied,
            sources,
            self.vocabulary,
            self.left,
            warnings,
        )

    def statement(self, covering: Covering, owner: Mapping[str, Covering], ties: Mapping[str, str]) -> ValueSource:
        """A statement with the tensors that it, and no later one, gives a value to."""
        names = {n: at for n, at in covering.names.items() if owner[n] is covering and n not in ties}
        assignment = covering.assignment
        return ValueSource(assignment.number, assignment.value, assignment.statement.value.span, names, covering.counts)
