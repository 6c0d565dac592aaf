"""Read this first: the way from a recipe's text to a plan, stage by stage.

parse       text            -> syntax tree          grammar/parse.py
evaluate    syntax tree     -> terms                statements.py   (opens models, by their headers)
settings    output(…)       -> Settings             settings.py
elaborate   terms           -> Graph                elaborate.py, instantiate.py
PASSES      Graph           -> Graph                passes/       (verified in between)
pack        outputs         -> files, offsets       packing.py
schedule    Graph           -> steps with peaks     schedule.py, steps.py
assemble                    -> Plan                 here
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from ..grammar import ast
from ..grammar.collector import collector_paused
from ..grammar.diagnostic import Diagnostic, MergecError, Severity, error
from ..grammar.parse import parse
from ..grammar.records import dataclass
from ..grammar.source import Source
from .check.bundles_whole import apart
from .check.expectations import check_expectations
from .check.loadable import unloadable
from .check.parts import check_parts
from .checkpoint.catalog import Catalog, InputFile
from .checkpoint.model import Model
from .elaborate.elaborate import Elaboration, elaborate
from .elaborate.outline import check_places
from .elaborate.vocabulary import vocabulary_of
from .emit.card import PROVENANCE, model_card, provenance
from .emit.companions import Companions, companions
from .emit.content import code_of, with_keys
from .emit.header_metadata import header_metadata
from .evaluate.extensions import Primitive
from .evaluate.settings import Settings, settings_of
from .evaluate.standard_library import Library
from .evaluate.statements import Recipe, evaluate
from .family.family import Family
from .graph.graph import Graph
from .graph.passes.simplify import simplify
from .graph.verifier import verify
from .ops.shapes import elements
from .pack.format import OutputFormat
from .pack.packing import Packing, index_texts, pack_outputs
from .pack.safetensors import SAFETENSORS
from .plan.machine import Machine
from .plan.plan import CHUNK, Document, Plan
from .schedule.schedule import Schedule, schedule

PASSES: tuple[Callable[[Graph], Graph], ...] = (simplify,)
"""The passes over the graph, in order; all of them are optional for correctness."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile.

    `device` is `cpu`, `cuda:0`, …; `lanes` how many blocks are in flight, `block` their largest
    size in elements; `host_memory` and `device_memory` budgets in bytes (None: not limited).
    `defines` is `-D`, `sets` is `--set output.KEY`. `primitives` are functions of installed
    packages by name, beside those of the language. `single`: the target is one weight file instead
    of a folder; weight files are of `format`. `check_graph` verifies the graph between passes.
    """

    device: str = "cpu"
    lanes: int = 2
    block: int = 1 << 18
    host_memory: int | None = None
    device_memory: int | None = None
    defines: Mapping[str, Any] = field(default_factory=dict)
    primitives: Mapping[str, Primitive] = field(default_factory=dict)
    sets: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False
    single: bool = False
    format: OutputFormat = SAFETENSORS
    title: str = "merged model"
    check_graph: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Compilation:
    """A compiled recipe: the plan, and what `--explain` tells about how it came to be.
    `diagnostics` are warnings."""

    module: ast.Module
    recipe: Recipe
    settings: Settings
    elaboration: Elaboration
    graph: Graph
    packing: Packing
    schedule: Schedule
    draft: Draft
    parameters: int
    options: Options
    diagnostics: tuple[Diagnostic, ...]

    @property
    def plan(self) -> Plan:
        """All that the executor gets; written out when it is first asked for."""
        return self.draft.plan()


class Draft:
    """A plan that nothing can be wrong with any more, still to be written out.

    That takes as long as half of all that comes before it, and whoever only checks a recipe has no
    use for it.
    """

    def __init__(self, write: Callable[[], Plan]) -> None:
        self._write = write
        self._plan: Plan | None = None

    def plan(self) -> Plan:
        if self._plan is None:
            with collector_paused():
                self._plan = self._write()
        return self._plan


def compile_recipe(source: Source, catalog: Catalog, version: str, options: Options | None = None) -> Compilation:
    """Compiles a recipe. Raises MergecError with every error that could be found, warnings
    included."""
    with collector_paused():
        return _compile(source, catalog, version, options or Options())


def _compile(source: Source, catalog: Catalog, version: str, options: Options) -> Compilation:
    library = Library(options.primitives)
    module = parse(source)
    recipe = evaluate(module, catalog, library, options.defines)
    found = list(recipe.diagnostics)
    failed = any(d.severity is Severity.ERROR for d in found)
    if failed and not recipe.models:
        raise MergecError(found)
    try:
        settings = settings_of(recipe, options.sets, options.strict)
        # with a statement missing, what it covers would be reported as not covered
        if failed:
            raise MergecError(check_places(recipe, settings))
        vocabulary = vocabulary_of(settings, tuple(recipe.models), catalog)
        found.extend(vocabulary.warnings if vocabulary is not None else ())
        elaboration = elaborate(recipe, settings, vocabulary, catalog)
    except MergecError as error:
        raise MergecError(in_order([*found, *recipe.advice, *error.diagnostics])) from None
    found.extend(elaboration.diagnostics)
    graph = elaboration.graph
    for run in (None, *PASSES):
        graph = run(graph) if run else graph
        if options.check_graph:
            verify(graph)
    layout, origin = _layout(settings, elaboration)
    family = elaboration.template.family
    beside, metadata = Companions(), options.format.metadata
    if options.single:
        given = (options.defines, options.sets, options.format.metadata)
        metadata, warnings = header_metadata(recipe, source.text, settings, elaboration, version, *given)
        found.extend(warnings)
    else:
        beside = companions(catalog, origin, settings, elaboration)
        found.extend(beside.warnings)
    shards = 1 << 62 if options.single else settings.shard_size
    parts = check_parts(elaboration, origin, single=options.single)
    packing = pack_outputs(graph.outputs, elaboration.ties, family, layout, shards, metadata, options.format, parts)
    parameters = sum(elements(o.shape) for o in graph.outputs)
    parted = apart(graph, packing, elaboration, settings)
    unfit = unloadable(elaboration, settings, origin, beside.documents)
    if parted or unfit:
        raise MergecError(in_order([*found, *recipe.advice, *parted, *unfit]))
    check_expectations(recipe, elaboration, library, parameters)
    found.extend(recipe.advice)
    made, draft = _assemble(source, version, options, recipe, settings, elaboration, graph, packing, beside, parameters)
    if options.strict and any(d.severity is Severity.WARNING for d in found):
        raise MergecError([_as_error(d) for d in found])
    return Compilation(
        module, recipe, settings, elaboration, graph, packing, made, draft, parameters, options, tuple(found)
    )


def _as_error(d: Diagnostic) -> Diagnostic:
    return Diagnostic(
        d.code, d.message, d.labels, (*d.notes, "an error because of `--strict`"), d.help, Severity.ERROR, d.file
    )


def in_order(diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
    """By place in the recipe; those about files come last."""
    return sorted(diagnostics, key=lambda d: (not d.labels, d.labels[0].span.start if d.labels else 0))


def _layout(settings: Settings, elaboration: Elaboration) -> tuple[str, Model]:
    """The output's layout and the model whose config.json goes with it."""
    template = elaboration.template
    layout = settings.layout or template.layout
    if layout == template.layout:
        return layout, template
    for model in elaboration.models:
        if model.layout == layout and _same_layouts(model.family, template.family):
            return layout, model
    raise error(
        "E0316",
        f"no input is in the layout `{layout}`, so there is no config.json for it",
        settings.spans["layout"],
        f"the inputs are in {', '.join(sorted({m.layout for m in elaboration.models}))}",
    )


def _same_layouts(one: Family, other: Family) -> bool:
    """Whether two models name their tensors alike: architectures of one type do."""
    return one is other or (one.name == other.name and one.layouts == other.layouts)


def _assemble(
    source: Source,
    version: str,
    options: Options,
    recipe: Recipe,
    settings: Settings,
    elaboration: Elaboration,
    graph: Graph,
    packing: Packing,
    beside: Companions,
    parameters: int,
) -> tuple[Schedule, Draft]:
    """The schedule, and the plan to be written out. Raises MergecError for all that can be wrong
    with either."""
    inputs: list[InputFile] = []
    files: dict[tuple[int, int], int] = {}
    for model in recipe.inputs:
        for k, file in enumerate(model.checkpoint.files):
            if (model.number, k) not in files:
                files[model.number, k] = len(inputs)
                inputs.append(file)
    made = _scheduled(graph, packing, recipe, files, settings, options)

    def documents() -> tuple[Document, ...]:
        if options.single:
            return ()
        documents = list(beside.documents)
        documents += [Document(name, text) for name, text in index_texts(packing, options.format)]
        facts = [("Parameters", f"{parameters:,}"), ("Seed", str(settings.seed)), ("mergec", version)]
        documents.append(Document("README.md", model_card(recipe, source.text, settings, facts, options.title)))
        given = (options.defines, options.sets)
        record = provenance(recipe, source.text, settings, elaboration, version, parameters, *given)
        return (*documents, Document(PROVENANCE, record))

    def write() -> Plan:
        made_by = code_of(graph, version, recipe.primitives)
        finite = settings.on_nonfinite == "error"
        return Plan(
            version=version,
            device=options.device,
            compute=settings.compute,
            lanes=made.lanes,
            single=options.single,
            on_nonfinite=settings.on_nonfinite,
            inputs=tuple(inputs),
            outputs=packing.files,
            tensors=with_keys(graph, packing, recipe.inputs, settings.compute, made_by, finite=finite),
            documents=documents(),
            tagalongs=beside.tagalongs,
            scalars=made.scalars,
            steps=made.steps(),
            peak_host=made.host,
            peak_device=made.device,
            reads=made.reads,
            writes=made.writes,
            folders=tuple(dict.fromkeys(m.checkpoint.location for m in recipe.inputs if m.checkpoint.is_folder)),
            made_by=made_by,
        )

    return made, Draft(write)


def _scheduled(
    graph: Graph,
    packing: Packing,
    recipe: Recipe,
    files: Mapping[tuple[int, int], int],
    settings: Settings,
    options: Options,
) -> Schedule:
    """The widest schedule that meets the memory budgets, blocks shrinking first.

    Raises MergecError (E0317) with the smallest budget that would do.
    """
    sizes = [options.block]
    while sizes[-1] > CHUNK:
        sizes.append(max(CHUNK, sizes[-1] // 2 // CHUNK * CHUNK))
    widths = [(options.lanes, size) for size in sizes] + [(lanes, CHUNK) for lanes in range(options.lanes - 1, 0, -1)]
    # what can't be held is streamed to a device, or computed, again for every pass
    choices = [(*width, hold) for hold in (True, False) for width in widths]
    least = (0, 0)
    for lanes, block, hold in choices:
        machine = Machine(options.device, lanes, block, settings.compute, hold)
        made = schedule(graph, packing.slots, recipe.inputs, files, machine, options.host_memory)
        least = made.host, made.device
        if least[0] <= (options.host_memory or least[0]) and least[1] <= (options.device_memory or least[1]):
            return made
    which = "--memory" if options.host_memory and least[0] > options.host_memory else "--device-memory"
    need = least[0] if which == "--memory" else least[1]
    raise error(
        "E0317",
        f"the budget `{which}` is too small for this merge",
        notes=f"the smallest that works is {-(-need // 2**20)} MiB, with one lane and the smallest blocks",
        help=f"`{which} {-(-need // 2**20)}MiB`",
    )
