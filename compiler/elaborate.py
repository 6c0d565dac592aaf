"""Terms to graph nodes: which statement gives each output tensor its value, and what that value is.

`elaborate` settles the output's template, depth, tensors and ties, then asks each statement's term for each tensor that
it covers. All errors that can be found are collected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..grammar.diagnostic import Diagnostic, Label, MergecError, Severity
from ..grammar.source import Span
from .aliases import config_value
from .dtypes import FLOATS, NAMES
from .evaluate import Assignment, Recipe
from .graph import Graph, Node, Output
from .instantiate import Instantiator, shape_text
from .layouts import CANONICAL, View, pack
from .models import Model
from .places import Coordinate, IndexStep, NameStep, Space
from .settings import Settings
from .terms import Leaf, Stack, Tie, Where, before_layers, is_region, leaves, picks
from .vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Covering:
    """What a statement covers: names in the output's order, and the coordinates under its place."""

    assignment: Assignment
    names: Mapping[str, Coordinate]
    counts: tuple[int, ...]


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
    layer_sources: dict[str, list[tuple[Model, int] | None]]
    vocabulary: Vocabulary | None
    diagnostics: list[Diagnostic] = field(default_factory=list)


def elaborate(recipe: Recipe, settings: Settings, vocabulary: Vocabulary | None) -> Elaboration:
    """Builds the graph of a recipe whose statements are evaluated. Raises MergecError with every error found."""
    return _Elaborator(recipe, settings, vocabulary).run()


def check_places(recipe: Recipe, settings: Settings) -> list[Diagnostic]:
    """What is wrong with the places on the left, for a recipe whose values could not all be evaluated."""
    elaborator = _Elaborator(recipe, settings, None)
    depth = elaborator.depths()
    space = elaborator.output_space(elaborator.names(depth), depth)
    found: list[Diagnostic] = []
    for path in recipe.paths:
        try:
            space.select(path)
        except MergecError as error:
            found.extend(error.diagnostics)
    return found


class _Elaborator:
    def __init__(self, recipe: Recipe, settings: Settings, vocabulary: Vocabulary | None) -> None:
        self.recipe, self.settings, self.vocabulary = recipe, settings, vocabulary
        self.template = settings.template
        self.errors: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.broken: set[int] = set()
        self.graph = Graph()
        self.layer_sources: dict[str, list[tuple[Model, int] | None]] = {}

    def run(self) -> Elaboration:
        depth = self.depths()
        names = self.names(depth)
        self.space = self.output_space(names, depth)
        coverings = self.coverings()
        owner: dict[str, Covering] = {}
        for covering in coverings:
            for name in covering.names:
                owner[name] = covering
        self.shadowed(coverings, owner)
        ties = self.ties(owner)
        self.layers(coverings, owner, depth)
        covered: dict[int, list[str]] = {c.assignment.number: [] for c in coverings}
        copied: list[str] = []
        make = Instantiator(self.graph, self.settings.seed, self.vocabulary)
        missing: list[str] = []
        for name in names:
            if name in ties:
                continue
            source = owner.get(name)
            if source is not None:
                if self.give(make, name, source):
                    covered[source.assignment.number].append(name)
            elif self.settings.template_named and self.template.find(name):
                self.fill(make, name)
                copied.append(name)
            else:
                missing.append(name)
        if missing:
            self.uncovered(missing)
        if not self.errors:
            self.unused(names)
        if self.errors:
            raise MergecError([*self.errors, *self.warnings])
        models = tuple(self.recipe.models)
        return Elaboration(
            self.graph,
            self.template,
            models,
            self.space,
            ties,
            covered,
            copied,
            self.layer_sources,
            self.vocabulary,
            self.warnings,
        )

    # --- what the output consists of

    def output_space(self, names: tuple[str, ...], depth: Mapping[str, int]) -> Space:
        """The output's canonical names, with those of its layout accepted as module paths."""
        family, layout = self.template.family, self.settings.layout or self.template.layout
        # only which parts go together is asked for, so any shape will do, the same for all
        packed = () if layout == CANONICAL else pack(family, layout, dict.fromkeys(names, (1,)))
        stored = {p.name: p.parts for p in packed if p.parts != (p.name,)}
        return Space(family, names, depth, "the output", stored)

    def depths(self) -> dict[str, int]:
        """The depth of each stack: `output(layers=…)`, a `stack(…)`, else the template's or one past the highest
        layer."""
        own = dict(self.template.space.depths)
        for assignment in self.recipe.assignments:
            for stack in self.template.family.stacks:
                parts = stack.name.split(".")
                steps = assignment.path.steps
                words = [s.name if isinstance(s, NameStep) else None for s in steps[: len(parts)]]
                if words != parts:
                    continue
                rest = steps[len(parts) :]
                index = rest[0] if rest and isinstance(rest[0], IndexStep) else None
                if isinstance(assignment.value, Stack) and (index is None or not index.intervals):
                    if len(rest) <= (index is not None):
                        own[stack.name] = sum(assignment.value.counts)
                elif index is not None:
                    tops = [i.stop for i in index.intervals if i.stop is not None]
                    own[stack.name] = max(own.get(stack.name, 0), *[t + 1 for t in tops], 0)
        if self.settings.layers is not None:
            stacks = [s.name for s in self.template.family.stacks if s.name in own]
            if len(stacks) == 1:
                own[stacks[0]] = self.settings.layers
            else:
                found = " and ".join(f"`{s}`" for s in stacks) or "no stack of layers"
                self.errors.append(
                    Diagnostic(
                        "E0302",
                        f"`layers` can't be set: the output has {found}",
                        (Label(self.settings.spans["layers"], "which one?"),),
                        help=tuple(f"`{s} = stack(…)` sets its depth" for s in stacks),
                    )
                )
        return own

    def names(self, depth: Mapping[str, int]) -> tuple[str, ...]:
        """The output's canonical names: the template's, its layers cut or repeated to the output's depth."""
        outside_before: list[str] = []
        outside_after: list[str] = []
        for name in self.template.space.names:
            if self.template.space.layer_of(name) is None:
                before = before_layers(self.template.space, name)
                (outside_before if before else outside_after).append(name)
        out = outside_before
        for stack in self.template.family.stacks:
            layers = below_layers(self.template, stack.name)
            if not layers:
                continue
            origin = self.stack_origin(stack.name)
            for j in range(depth[stack.name]):
                rests = layers.get(j) or layers[max(layers)]
                if origin is not None:
                    model, i = origin[j]
                    rests = below_layers(model, stack.name).get(i, rests)
                out.extend(f"{stack.head}{j}.{rest}" for rest in rests)
        return (*out, *outside_after)

    def stack_origin(self, stack: str) -> list[tuple[Model, int]] | None:
        """For a stack that a `stack(…)` builds: the model and layer that each output layer takes its tensors' names
        from."""
        for assignment in reversed(self.recipe.assignments):
            if (
                isinstance(assignment.value, Stack)
                and ".".join(s.name for s in assignment.path.steps if isinstance(s, NameStep)) == stack
            ):
                out: list[tuple[Model, int]] = []
                for part in assignment.value.parts:
                    model, path = picks(part)[0][0]
                    out.extend((model, i) for i in model.space.select(path).indices)
                return out
        return None

    # --- which statement covers what

    def coverings(self) -> list[Covering]:
        out = []
        for assignment in self.recipe.assignments:
            try:
                selection = self.space.select(assignment.path)
            except MergecError as error:
                self.errors.extend(error.diagnostics)
                continue
            out.append(Covering(assignment, selection.names, selection.counts))
        return out

    def shadowed(self, coverings: list[Covering], owner: Mapping[str, Covering]) -> None:
        for covering in coverings:
            if any(owner[name] is covering for name in covering.names):
                continue
            later: dict[int, Covering] = {}
            for name in covering.names:
                later.setdefault(owner[name].assignment.number, owner[name])
            labels = [Label(covering.assignment.path.span, "covered whole by later statements")]
            labels += [Label(c.assignment.path.span, "covers it") for _, c in sorted(later.items())[:3]]
            self.warnings.append(
                Diagnostic(
                    "W0501",
                    f"the statement for `{covering.assignment.path}` has no effect",
                    tuple(labels),
                    help=("later statements win: put the general one first",),
                    severity=Severity.WARNING,
                )
            )

    def ties(self, owner: Mapping[str, Covering]) -> dict[str, str]:
        """The output's ties: the template's, less those that a statement unties, and those that `tie(…)` makes."""
        out: dict[str, str] = {}
        always = {a for rule in self.template.family.ties if rule.config_key is None for a in rule.aliases}
        for alias, primary in self.template.aliases.items():
            own = owner.get(alias)
            if alias in always or own is None or primary in own.names or isinstance(own.assignment.value, Tie):
                out[alias] = primary
        for covering in {id(c): c for c in owner.values()}.values():
            if not isinstance(covering.assignment.value, Tie) and all(n in always for n in covering.names):
                name = next(iter(covering.names))
                owned = self.template.aliases.get(name)
                if owned is not None and owned not in covering.names:
                    self.errors.append(
                        Diagnostic(
                            "E0312",
                            f"`{name}` always shares storage with `{owned}` in family `{self.template.family.name}`",
                            (Label(covering.assignment.path.span, "can't have a value of its own"),),
                            help=(f'`"{owned}" = {covering.assignment.statement.value.span.text}`',),
                        )
                    )
        for name, covering in owner.items():
            value = covering.assignment.value
            if not isinstance(value, Tie):
                continue
            try:
                target = self.space.select(value.path)
            except MergecError as error:
                self.errors.extend(error.diagnostics)
                continue
            coordinate = covering.names[name]
            primary_name = target.by_coordinate.get(coordinate)
            if primary_name is None and name in always:
                continue
            if primary_name is None:
                self.errors.append(
                    Diagnostic(
                        "E0312",
                        f"`{value.path}` has no tensor that corresponds to `{name}`",
                        (Label(value.span, "can't be tied"),),
                    )
                )
                continue
            primary_name = out.get(primary_name, primary_name)
            shapes = [found[1].shape for n in (name, primary_name) if (found := self.template.find(n))]
            if len(set(shapes)) > 1:
                first, second = (shape_text(s) for s in shapes)
                self.errors.append(
                    Diagnostic(
                        "E0312",
                        f"`{name}` is {first} and `{primary_name}` is {second}, so they can't be tied",
                        (Label(value.span, "shapes differ"),),
                    )
                )
                continue
            if primary_name == name:
                if self.template.aliases.get(target.by_coordinate[coordinate]) != name:
                    self.errors.append(
                        Diagnostic("E0312", f"`{name}` can't be tied to itself", (Label(value.span, "the same place"),))
                    )
                continue
            if any(rule.primary == name and primary_name in rule.aliases for rule in self.template.family.ties):
                first, second = f"{covering.assignment.path}", f"{value.path}"
                self.errors.append(
                    Diagnostic(
                        "E0312",
                        f"this family stores a tied tensor as `{name}`, not as `{primary_name}`",
                        (Label(value.span, "tied the wrong way round"),),
                        help=(f"give `{first}` the value and tie the other: `{second} = tie({first})`",),
                    )
                )
                continue
            out[name] = primary_name
        self.mixed_heads(owner, out)
        return out

    def mixed_heads(self, owner: Mapping[str, Covering], ties: Mapping[str, str]) -> None:
        """An input whose own head the tied output would drop without a word (E0310)."""
        for alias, primary in ties.items():
            source = owner.get(primary)
            own = owner.get(alias)
            if source is None or (own is not None and isinstance(own.assignment.value, Tie)):
                continue
            for leaf in _distinct(leaves_of(source.assignment.value)):
                if alias in leaf.model.tensors:
                    place = next(
                        (r for r, ms in self.template.family.places.items() if any(alias.startswith(m) for m in ms)),
                        f'"{alias}"',
                    )
                    first = next(
                        (r for r, ms in self.template.family.places.items() if any(primary.startswith(m) for m in ms)),
                        f'"{primary}"',
                    )
                    value = source.assignment.statement.value.span.text
                    self.errors.append(
                        Diagnostic(
                            "E0310",
                            f"`{leaf.model.label}` has its own `{place}`, but the output ties it to `{first}`",
                            (
                                Label(
                                    source.assignment.statement.value.span,
                                    f"would drop `{alias}` of `{leaf.model.label}`",
                                ),
                                Label(leaf.model.span, "stores its own"),
                            ),
                            notes=(f"the output is tied because its template, `{self.template.label}`, is",),
                            help=(
                                f"to accept that: `{place} = tie({first})`",
                                f"to keep a trained one, untied: `{place} = {value}`",
                            ),
                        )
                    )
                    break

    def origins(self, value: Any, touched: list[int], sources: list[tuple[Model, int] | None]) -> None:
        """Notes which layers the touched ones were picked from; those of a model taken whole come from the
        template's."""
        flat: list[tuple[Model, int]] = []
        for part in value.parts if isinstance(value, Stack) else (value,):
            picked, _ = picks(part)
            if picked:
                model, path = picked[0]
                flat.extend((model, i) for i in model.space.select(path).indices)
        if len(flat) == len(touched):
            for j, origin in zip(touched, flat, strict=True):
                sources[j] = origin

    def layers(self, coverings: list[Covering], owner: Mapping[str, Covering], depth: Mapping[str, int]) -> None:
        """Where each output layer comes from, and models whose layers do not fit the statement that uses them whole."""
        for stack in self.template.family.stacks:
            if stack.name not in depth:
                continue
            sources: list[tuple[Model, int] | None] = [None] * depth[stack.name]
            template_depth = self.template.space.depths.get(stack.name, 0)
            for j in range(min(depth[stack.name], template_depth)):
                sources[j] = (self.template, j)
            for covering in coverings:
                value = covering.assignment.value
                if not is_region(value) or isinstance(value, Tie):
                    continue
                whole = not any(isinstance(s, IndexStep) and s.intervals for s in covering.assignment.path.steps)
                touched = sorted(
                    {
                        at[1]
                        for n in covering.names
                        if (at := self.space.layer_of(n)) and at[0].name == stack.name and owner[n] is covering
                    }
                )
                if not touched:
                    continue
                self.origins(value, touched, sources)
                for leaf in _distinct(leaves_of(value)):
                    have = leaf.model.space.depths.get(stack.name)
                    if leaf.path is not None or not whole or have is None:
                        continue
                    dropped = have > depth[stack.name] and self.settings.layers is None
                    if dropped or touched[-1] >= have:
                        self.broken.add(covering.assignment.number)
                        self.errors.append(
                            Diagnostic(
                                "E0315",
                                f"`{leaf.model.label}` has {have} layers and the output {depth[stack.name]}",
                                (
                                    Label(leaf.span, f"{have} layers"),
                                    Label(covering.assignment.path.span, f"{depth[stack.name]} layers"),
                                ),
                                notes=(f"the output's depth is that of `{self.template.label}`",)
                                if depth[stack.name] == template_depth
                                else (),
                                help=(
                                    f"say which layers meet: `{stack.name}[0..{min(have, depth[stack.name]) - 1}] = …`,"
                                    f" or build the stack: `{stack.name} = stack(…)`",
                                ),
                            )
                        )
            self.layer_sources[stack.name] = sources

    # --- values

    def where(self, name: str, coordinate: Coordinate, counts: tuple[int, ...]) -> Where:
        at = self.space.layer_of(name)
        stacks = list(self.space.depths.values())
        layers = self.space.depths.get(at[0].name, 0) if at else (stacks[0] if stacks else 0)
        return Where(name, coordinate, counts, self.space, at[1] if at else None, layers, name)

    def give(self, make: Instantiator, name: str, covering: Covering) -> bool:
        """Adds an output tensor with its statement's value; False where that is wrong."""
        assignment = covering.assignment
        if len(self.errors) > 50 or assignment.number in self.broken:
            return False
        try:
            where = self.where(name, covering.names[name], covering.counts)
            node = make.root(assignment.value, where, assignment.statement.value.span)
        except MergecError as error:
            span = assignment.statement.value.span
            seen = {(d.code, d.labels[0].span if d.labels else None) for d in self.errors}
            for d in error.diagnostics:
                if d.labels and not any(span.start <= x.span.start < span.end for x in d.labels):
                    d = dataclasses.replace(d, labels=(*d.labels, Label(span, "needed here")))
                if (d.code, d.labels[0].span if d.labels else None) not in seen:
                    self.errors.append(d)
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

    # --- coverage and use

    def uncovered(self, missing: list[str]) -> None:
        shown = fold(missing, self.space)
        number = f"{len(missing)} tensor{'s' if len(missing) > 1 else ''}"
        help_ = ["give everything a value first: `* = …`"]
        if not self.settings.template_named:
            help_.append(f"or copy what is left from a template: `output(like={self.template.label})`")
        span = self.recipe.assignments[-1].statement.span if self.recipe.assignments else self.template.span
        notes = [f"not covered: {', '.join(shown[:12])}{' …' if len(shown) > 12 else ''}"]
        if self.settings.template_named:
            notes.append(f"the template, `{self.template.label}`, has nothing to copy there")
        self.errors.append(
            Diagnostic(
                "E0308",
                f"{number} of the output {'have' if len(missing) > 1 else 'has'} no value",
                (Label(span, "no statement so far covers them"),),
                notes=tuple(notes),
                help=tuple(help_),
            )
        )

    def unused(self, names: tuple[str, ...]) -> None:
        live = {n.attribute("range").model for n in self.graph.live() if n.op == "source"}
        strict = self.settings.strict
        severity = Severity.ERROR if strict else Severity.WARNING
        have = {self.slot(n) for n in names}
        for model in self.recipe.models:
            if model.number not in live and model.number != self.template.number:
                self.warn(
                    Diagnostic(
                        "W0502",
                        f"nothing of `{model.label}` is used",
                        (Label(model.span, "not needed by the output"),),
                        severity=severity,
                    )
                )
                continue
            if model.number not in live:
                continue
            extra = [n for n in model.tensors if self.slot_of(model, n) not in have]
            if extra:
                shown = fold(extra, model.space)
                self.warn(
                    Diagnostic(
                        "W0503",
                        f"{len(extra)} tensor{'s' if len(extra) > 1 else ''} of `{model.label}` "
                        f"{'have' if len(extra) > 1 else 'has'} no place in the output",
                        (Label(model.span, "left out: " + ", ".join(shown[:6]) + (" …" if len(shown) > 6 else "")),),
                        severity=severity,
                    )
                )

    def warn(self, diagnostic: Diagnostic) -> None:
        (self.errors if diagnostic.severity is Severity.ERROR else self.warnings).append(diagnostic)

    def slot(self, name: str) -> tuple[str, str]:
        at = self.space.layer_of(name)
        return (at[0].name, at[2]) if at else ("", name)

    def slot_of(self, model: Model, name: str) -> tuple[str, str]:
        at = model.space.layer_of(name)
        return (at[0].name, at[2]) if at else ("", name)


def below_layers(model: Model, stack: str) -> dict[int, list[str]]:
    """Layer number to the names below that layer, for one stack of a model."""
    out: dict[int, list[str]] = {}
    for name in model.space.names:
        at = model.space.layer_of(name)
        if at is not None and at[0].name == stack:
            out.setdefault(at[1], []).append(at[2])
    return out


def leaves_of(value: Any) -> list[Leaf]:
    return leaves(value) if is_region(value) else []


def _distinct(found: Iterable[Leaf]) -> list[Leaf]:
    seen: dict[tuple[str, bool], Leaf] = {}
    for leaf in found:
        seen.setdefault((leaf.model.label, leaf.path is None), leaf)
    return list(seen.values())


def fold(names: Iterable[str], space: Space) -> list[str]:
    """Names for people, layers folded: `layers[12..15].mlp.down_proj.weight`."""
    runs: dict[tuple[str, str], list[int]] = {}
    for name in names:
        at = space.layer_of(name)
        if at is None:
            runs.setdefault(("", name), [])
        else:
            runs.setdefault((at[0].name, at[2]), []).append(at[1])
    grouped: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for (stack, rest), numbers in runs.items():
        grouped.setdefault((stack, tuple(sorted(numbers))), []).append(rest)
    out = []
    for (stack, layers), rests in grouped.items():
        if not stack:
            out.extend(rests)
            continue
        shown: list[list[int]] = []
        for n in layers:
            if shown and shown[-1][1] == n - 1:
                shown[-1][1] = n
            else:
                shown.append([n, n])
        index = ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in shown)
        whole = f"{stack}[{index}]"
        if len(rests) > 3:
            out.append(f"{whole} ({len(rests)} tensors each)")
        else:
            out.extend(f"{whole}.{rest}" for rest in rests)
    return out
