"""Whether the output keeps together what belongs together: bundles are copied whole, from one model
each.

Arithmetic on them is refused while nodes are made (`operands.py`); what is left to see here is what
became of whole tensors: copies that part a weight from its scales, casts, and numbers where the
template's config promises codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from ...grammar.diagnostic import Diagnostic, Label
from ...grammar.records import dataclass
from ...grammar.source import Span
from ..checkpoint.bundles import APART, CODES, Bundles, Part, codes_at, named, part_of
from ..checkpoint.model import Model
from ..checkpoint.quantised import SETTINGS
from ..elaborate.elaborate import Elaboration
from ..elaborate.equivalence import sources_below
from ..evaluate.settings import Settings
from ..graph.graph import Graph, Output, StoredRange
from ..pack.packing import Packing


@dataclass(slots=True, eq=False)
class _Put:
    """What is copied to one module of the output: by model and module there, the bundle and the
    parts copied."""

    first: Output
    sources: dict[tuple[int, str], tuple[Bundles, set[Part]]] = field(default_factory=dict)


def apart(graph: Graph, packing: Packing, elaboration: Elaboration, settings: Settings) -> list[Diagnostic]:
    """The errors for what the outputs of `graph` take apart: E0456 to E0458, one of each kind per
    statement."""
    models = {m.number: m for m in (*elaboration.models, elaboration.template) if m.bundles}
    if not models:
        return []
    found: dict[tuple[str, Span | None], Diagnostic] = {}
    for diagnostic in _Looked(graph, packing, elaboration, settings, models).errors():
        spans = [label.span for label in diagnostic.labels]
        found.setdefault((diagnostic.code, spans[-1] if spans else None), diagnostic)
    return list(found.values())


class _Looked:
    def __init__(
        self,
        graph: Graph,
        packing: Packing,
        elaboration: Elaboration,
        settings: Settings,
        models: Mapping[int, Model],
    ) -> None:
        self.graph, self.models, self.template = graph, models, elaboration.template
        self.stored = {o.name: packing.tensors[packing.slots[o.name].tensor].name for o in graph.outputs}
        self.present = {*self.stored.values(), *elaboration.ties}
        self.told = any(key in settings.config for key in SETTINGS)
        self.put: dict[tuple[str, str], _Put] = {}
        self.coded = dict(_coded(self.template))

    def errors(self) -> Iterator[Diagnostic]:
        for output in self.graph.outputs:
            yield from self._output(output)
        for (_, home), put in self.put.items():
            yield from self._module(home, put)

    def _output(self, output: Output) -> Iterator[Diagnostic]:
        copied = output.node.op == "source"
        bundled = False
        for place in _reads(output):
            model = self.models.get(place.model)
            for bundle in model.bundles if model is not None else ():
                if model is None or not bundle.covers(place.stored):
                    continue
                member = place.stored in bundle.modules
                bundled |= member
                # factors may be rounded; the rows of a plain tensor may be put into another order
                cast = output.dtype != place.dtype and bundle.code == CODES
                if cast or (not copied and (member or output.node.op != "gather")):
                    dtype, at = output.dtype if copied else None, output.span or model.span
                    yield bundle.computed(model.label, model.span, place.stored, place.dtype, at, dtype)
                elif member:
                    self._note(output, model, bundle, place.stored)
        template = self.template
        stored = None if bundled else self._like(output.name)
        own = None if stored is None else codes_at(template.bundles, stored)
        if stored is not None and own is not None:
            yield own.replaced(template.label, template.span, stored, output.span or template.span)

    def _like(self, name: str) -> str | None:
        """The template's stored tensor that an output stands for; where it has none of the name,
        codes of any layer."""
        like = self.template.find(name)
        if like is not None:
            return like[1].stored
        at = self.template.space.layer_of(name)
        return None if at is None else self.coded.get((at[0].name, at[2]))

    def _note(self, output: Output, model: Model, bundle: Bundles, stored: str) -> None:
        module, name = bundle.modules[stored], self.stored[output.name]
        part = part_of(stored, module)
        before, behind = part
        fits = name.startswith(before) and name.endswith(behind) and len(name) >= len(before) + len(behind)
        home = name[len(before) : len(name) - len(behind)] if fits else name
        put = self.put.setdefault((bundle.code, home), _Put(output))
        put.sources.setdefault((model.number, module), (bundle, set()))[1].add(part)

    def _module(self, home: str, put: _Put) -> Iterator[Diagnostic]:
        at = put.first.span or self.template.span
        (number, module), (bundle, parts) = next(iter(put.sources.items()))
        model = self.models[number]
        one = named(min(parts), module)
        if len(put.sources) > 1:
            other, elsewhere = list(put.sources)[1]
            second = named(min(put.sources[other, elsewhere][1]), elsewhere)
            message = f"`{home}` gets `{one}` of `{model.label}` and `{second}` of `{self.models[other].label}`"
            yield _wrong(message, at, model, bundle)
            return
        left = [p for p in sorted(bundle.parts[module] - parts) if named(p, home) not in self.present]
        left = [p for p in left if named(p, module) not in model.ignored]
        if left:
            message = f"`{one}` of `{model.label}` is copied without `{named(left[0], module)}`"
            yield _wrong(message, at, model, bundle)
        yield from self._setting(home, model, bundle, at)

    def _setting(self, home: str, model: Model, bundle: Bundles, at: Span) -> Iterator[Diagnostic]:
        """What config.json of the output would say of the codes that are copied, where that is
        another thing."""
        template = self.template
        if self.told or template.number == model.number or bundle.setting is None or not template.config:
            return
        own = next((b for b in template.bundles if b.code == bundle.code), None)
        if own is None or own.setting != bundle.setting:
            says = "does not say" if own is None or own.setting is None else "says otherwise"
            yield Diagnostic(
                APART,
                f"`{model.label}` is {bundle.found}, and config.json of `{template.label}` {says}",
                (
                    Label(at, f"codes for `{home}`"),
                    Label(template.span, "the template, whose config.json goes out"),
                    Label(model.span, bundle.found),
                ),
                help=(
                    # where the template has codes too, it would be their config that says otherwise
                    # then
                    *(
                        (f"take config.json from there: `output(like={model.label})`",)
                        if own is None or own.setting is None
                        else ()
                    ),
                    *bundle.ways,
                ),
            )


def _coded(template: Model) -> Iterator[tuple[tuple[str, str], str]]:
    """By stack and name below a layer what is codes in the template, or would be a plain weight in
    place of some."""
    for name, view in template.tensors.items():
        if codes_at(template.bundles, view.stored) is None:
            continue
        at = template.space.layer_of(name)
        if at is not None:
            yield (at[0].name, at[2].rpartition(".")[0] + ".weight"), view.stored
            yield (at[0].name, at[2]), view.stored


def _wrong(message: str, at: Span, model: Model, bundle: Bundles) -> Diagnostic:
    return Diagnostic(
        APART,
        message,
        (Label(at, f"parted from {bundle.partners}"), Label(model.span, bundle.found)),
        (bundle.why,),
        (f"copy all of a module from one model; of `{model.label}` whole: `* = {model.label}`", *bundle.ways),
    )


def _reads(output: Output) -> Sequence[StoredRange]:
    equivalence = output.equivalence
    if equivalence is None:
        return sources_below([output.node])
    return [equivalence.range(k, view) for k, view in enumerate(output.reads)]
