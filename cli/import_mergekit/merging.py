"""One merge as statements: an expression for the whole model, or a stack of slices with what goes
around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from types import MappingProxyType

from ...compiler.family.space import Space
from ...compiler.terms.terms import before_layers
from ...grammar.diagnostic import Diagnostic, Label, MergecError, collecting, error, finding
from ...grammar.literals import bare, write_string
from ...grammar.records import dataclass
from ...grammar.suggest import near
from .calls import Operand, check_inputs, operands_of, write_call
from .checkpoints import Known
from .configuration import Input, Merge, ModelRef, ModuleSpec, Scope, Slice
from .gradients import Frame, path_of
from .methods import METHODS, Base, Method
from .recipe_text import RecipeLine, Written

MODULES: Mapping[str, tuple[tuple[str, ...], str | None]] = MappingProxyType(
    {
        "default": (("*",), None),
        "text_decoder": (("text",), "text.layers"),
        "language_model": (("text",), "text.layers"),
        "vision_tower": (("vision",), "vision.layers"),
        "vision_model": (("vision",), "vision.layers"),
        "audio_tower": (("audio",), "audio.layers"),
        "multi_modal_projector": (("projector",), None),
        "encoder": (("encoder",), "encoder.layers"),
        "decoder": (("decoder",), "decoder.layers"),
        "shared": (("embed", "head"), None),
    }
)
"""mergekit's names of modules: the places that they are, and their stack of layers."""


def has_modules(known: Known, modules: Sequence[ModuleSpec]) -> bool:
    """Whether a model has all parts of these names, as far as they are known."""
    places = [place for module in modules for place in MODULES.get(module.name or "", ((), None))[0] if place != "head"]
    return all(_covered(known.space, place) for place in places)


Part = tuple[str, Written]
"""A place, and the expression that gives it its value."""


@dataclass(frozen=True, slots=True)
class WholeModelMerge:
    """A merge that is one expression; `layers` is its depth where that is not its inputs'."""

    value: Written
    layers: int | None = None


@dataclass(slots=True)
class Merger:
    """Writes a merge. `like` is the model whose configuration the output has, `region` names a
    model in the recipe, `known` gives what is known of one.

    `remarks` gathers what is to be said above the statements, `warnings` what is to be said at
    once; `layers` is the output's depth where it must be set.
    """

    merge: Merge
    like: ModelRef
    region: Callable[[ModelRef], str]
    known: Callable[[ModelRef], Known | None]
    remarks: list[str] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    layers: int | None = None

    @property
    def method(self) -> Method:
        """The method. Raises MergecError (E0703) where there is none of this name."""
        given = self.merge.method
        if given.value not in METHODS:
            names = ", ".join(f"`{name}`" for name in METHODS)
            message = f"mergekit has no method `{bare(given.value)}`"
            meant = near(given.value, list(METHODS))
            help_ = f"did you mean {' or '.join(f'`{m}`' for m in meant)}?" if meant else ()
            raise error("E0703", message, given.span, "unknown method", notes=f"it has {names}", help=help_)
        return METHODS[given.value]

    def lines(self) -> list[RecipeLine]:
        """The statements of the output. Raises MergecError."""
        span = self.merge.method.span
        return [RecipeLine(f"{place} = {value.text}", span, value.arguments) for place, value in self._parts(False)]

    def expression(self) -> Written:
        """The merge as one expression: a map of places where it takes several. Raises
        MergecError."""
        parts = self._parts(True)
        if len(parts) == 1:
            return parts[0][1]
        # the first is for all that the others leave
        texts = [f"{'_' if place == '*' else place}: {value.text}" for place, value in parts]
        return Written(f"{{{', '.join(texts)}}}", tuple([a for _, value in parts for a in value.arguments]))

    def space(self) -> Space | None:
        """The tensors of the merge, where it is made of slices; None where they are those of its
        inputs."""
        known, module = self.known(self.like), self.merge.modules[0]
        stacks = self._stacks(module)
        if not module.slices or len(stacks) != 1:
            return None
        return self._output_space(known, module, stacks[0])

    def _parts(self, inner: bool) -> list[Part]:
        """What each place gets; a later one takes what an earlier one covers too. `inner`: in an
        expression, which has no `output(layers=…)`."""
        errors: list[Diagnostic] = []
        out: list[Part] = []
        for module in self.merge.modules:
            with collecting(errors):
                out.extend(self._module(module, inner))
        if errors:
            raise MergecError(errors)
        return out

    # --- a module

    def _module(self, module: ModuleSpec, inner: bool) -> list[Part]:
        stacks = self._stacks(module)
        whole = self._of_whole_models(module, stacks)
        if whole is not None and not (inner and whole.layers):
            self.layers = whole.layers or self.layers
            return [(place, whole.value) for place in self._places(module)]
        return self._sliced(module, stacks[0] if stacks else "layers")

    def _stacks(self, module: ModuleSpec) -> tuple[str, ...]:
        """The stacks of layers that lists of values run over."""
        known = self.known(self.like)
        if self.merge.raw:
            return ()
        if module.name is not None and module.name != "default":
            stack = self._named(module)[1]
            return (stack,) if stack else ()
        if known is None:
            return ("layers",)
        return tuple([s.name for s in known.family.stacks if known.depths.get(s.name)])

    def _named(self, module: ModuleSpec) -> tuple[tuple[str, ...], str | None]:
        assert module.name is not None
        if module.name not in MODULES:
            known = self.known(self.like)
            if known is not None and module.name.isidentifier() and _covered(known.space, module.name):
                return (module.name,), None
            names = ", ".join(f"`{name}`" for name in MODULES)
            message = f"the module `{bare(module.name)}` is not known here"
            raise error("E0710", message, module.span, "a part of the model", notes=f"known are {names}")
        return MODULES[module.name]

    def _places(self, module: ModuleSpec) -> tuple[str, ...]:
        if module.name is None:
            return ("*",)
        places, _ = self._named(module)
        known = self.known(self.like)
        if known is None:
            return places
        found = []
        for place in places:
            if place == "head" and not known.has_head():
                continue
            if place != "*" and not _covered(known.space, place):
                message = f"the family `{known.family.name}` has no place for the module `{module.name}`"
                stacks = ", ".join(f"`{s.name}`" for s in known.family.stacks if known.depths.get(s.name))
                notes = f"its layers are {stacks}" if stacks else ()
                raise error("E0710", message, module.span, f"no `{place}` there", notes=notes)
            found.append(place)
        return tuple(found)

    # --- whole models

    def _of_whole_models(self, module: ModuleSpec, stacks: tuple[str, ...]) -> WholeModelMerge | None:
        """A module that is made of whole models, or of a single slice from their first layers on;
        else None."""
        known = self.known(self.like)
        if module.models:
            frame = Frame(stacks, None, known.space if known else None, self._own_names(module, known))
            return WholeModelMerge(self._call(module, None, module.models, (), frame, self.merge.base))
        part = module.slices[0]
        if len(module.slices) > 1 or any(i.layers is None or i.layers[0] for i in part.sources):
            return None
        depth = self._length(part)
        if len(stacks) > 1 or (module.name and not (known and known.depths.get(stacks[0] if stacks else "") == depth)):
            return None
        names = self._own_names(module, known)
        if known is not None and names is not None:
            names = tuple([n for n in names if not (at := known.space.layer_of(n)) or at[1] < depth])
        frame = Frame(stacks, None, known.space if known else None, names)
        value = self._call(module, part, part.sources, (), frame, part.base or self.merge.base)
        same = known is not None and known.depths.get(stacks[0] if stacks else "") == depth
        return WholeModelMerge(value, None if same else depth)

    def _own_names(self, module: ModuleSpec, known: Known | None) -> tuple[str, ...] | None:
        if known is None:
            return None
        if module.name is None or module.name == "default":
            return known.names
        covered = {n for place in self._places(module) for n in _covered(known.space, place)}
        return tuple([n for n in known.names if n in covered])

    # --- slices

    def _sliced(self, module: ModuleSpec, stack: str) -> list[Part]:
        known = self.known(self.like)
        bounds, reached = [], 0
        for part in module.slices:
            bounds.append((reached, reached + self._length(part) - 1))
            reached = bounds[-1][1] + 1
        if not reached:
            raise error("E0707", "the slices have no layer at all", module.slices[0].span, "an empty range")
        space = self._output_space(known, module, stack)
        parts: list[Written] = []
        errors: list[Diagnostic] = []
        for part, (first, last) in zip(module.slices, bounds, strict=True):
            if last < first:
                continue  # at an end of the stack it says where the embedding, or norm and head, come from
            inside = _layers(space, stack, first, last) if space else None
            with collecting(errors):
                frame = Frame((), (first, last), space, inside)
                base = part.base or self.merge.base
                parts.append(self._call(module, part, part.sources, (stack, first), frame, base))
        if errors:
            raise MergecError(errors)
        out = self._around(module, space, known)
        text = f"stack({', '.join(p.text for p in parts)})"
        out.insert(len(self._places(module)), (stack, Written(text, tuple([a for p in parts for a in p.arguments]))))
        return out

    def _around(self, module: ModuleSpec, space: Space | None, known: Known | None) -> list[Part]:
        """What is outside the layers: before them of the first slice, after them of the last
        one."""
        first, last = module.slices[0], module.slices[-1]
        outside = [n for n in space.names if space.layer_of(n) is None] if space else None
        if outside is not None and module.name not in (None, "default"):
            mine = set(self._own_names(module, known) or ())
            outside = [n for n in outside if n in mine]
        before = [n for n in outside if space and before_layers(space, n)] if outside is not None else None
        after = [n for n in outside if n not in (before or ())] if outside is not None else None
        lead = self._outside(module, first, space, before)
        tail = self._outside(module, last, space, after)
        out = [(place, lead) for place in self._places(module)]
        if len(last.sources) > len(first.sources):
            text = "mergekit would drop the further models of the last slice from the final norm and the head"
            self.remarks.append(f"{text}: a bug there")
            label = f"{len(last.sources)} models here, {len(first.sources)} in the first slice"
            self.warnings.append(finding("W0713", text, last.span, label))
        if lead.text == tail.text:
            return out
        places = _places_of(known, after) if known is not None and after is not None else ["norm", "head"]
        if known is None:
            self.remarks.append("leave `head` out where it is tied to the embeddings")
        out.extend((place, tail) for place in places)
        return out

    def _outside(self, module: ModuleSpec, part: Slice, space: Space | None, names: Sequence[str] | None) -> Written:
        frame = Frame((), None, space, tuple(names) if names else None)
        return self._call(module, part, part.sources, (), frame, part.base or self.merge.base)

    def _length(self, part: Slice) -> int:
        lengths = {i.layers[1] - i.layers[0] for i in part.sources if i.layers}
        if len(lengths) != 1:
            labels = [Label(i.span, f"{i.layers[1] - i.layers[0]} layers") for i in part.sources if i.layers]
            raise error("E0707", "the sources of a slice must have equally many layers", labels)
        return lengths.pop()

    def _output_space(self, known: Known | None, module: ModuleSpec, stack: str) -> Space | None:
        """The output's tensors, each layer's those of the layer that it is made of first."""
        found = next((s for s in known.family.stacks if s.name == stack), None) if known else None
        if known is None or found is None:
            return None
        names = [n for n in known.names if (at := known.space.layer_of(n)) is None or at[0].name != stack]
        number = 0
        for part in module.slices:
            source = part.sources[0]
            origin = self.known(source.model)
            if origin is None or source.layers is None:
                return None
            below: dict[int, list[str]] = {}
            for name in origin.names:
                at = origin.space.layer_of(name)
                if at is not None and at[0].name == stack:
                    below.setdefault(at[1], []).append(at[2])
            for k in range(*source.layers):
                names.extend(f"{found.head}{number}.{rest}" for rest in below.get(k, ()))
                number += 1
        return Space(known.family, tuple(names), {**known.depths, stack: number}, "the output")

    # --- a call

    def _call(
        self,
        module: ModuleSpec,
        part: Slice | None,
        inputs: Sequence[Input],
        at: tuple[str, int] | tuple[()],
        frame: Frame,
        base: ModelRef | None,
    ) -> Written:
        """The method over the inputs; `at` is the stack and the output's layer at which picked
        layers begin."""
        method, span = self.method, self.merge.method.span
        base, beside = (None, True) if self._lies_beside(module, base) else (base, False)
        given = operands_of(inputs, base, append=part is None)
        where = part.span if part is not None else span
        models = [m for m, _ in given]
        found = check_inputs(method, models, base if method.base is not Base.IGNORED else None, where)
        if beside and len(models) == 1:
            found = []
        if found and module.name is not None:
            found = [_of_module(d, module, method, len(models)) for d in found]
        if found:
            raise MergecError(found)
        operands = []
        for model, source in given:
            region, shift = self.region(model), 0
            if at and source is not None and source.layers is not None:
                first, end = source.layers
                picked = str(first) if end - first == 1 else f"{first}..{end - 1}"
                region, shift = f"{region}.{at[0]}[{picked}]", first - at[1]
            own: Scope = source.parameters if source is not None else ()
            operands.append(Operand(region, model, own, source.span if source is not None else model.span, shift))
        if beside and len(operands) == 1:
            return Written(operands[0].region)
        scopes = [*([part.parameters] if part is not None else []), module.parameters, self.merge.parameters]
        return write_call(method, operands, base, scopes, frame, span)

    def _lies_beside(self, module: ModuleSpec, base: ModelRef | None) -> bool:
        """Whether a module is a part that the base, a language model, does not have at all."""
        known = self.known(base) if base is not None else None
        if known is None or base == self.like or module.name in (None, "default"):
            return False
        places, _ = self._named(module)
        return "text" not in places and not any(_covered(known.space, place) for place in places)


def _of_module(found: Diagnostic, module: ModuleSpec, method: Method, inputs: int) -> Diagnostic:
    """What is wrong with the inputs of a named module, and a way out where one is all that it
    has."""
    helps = found.help
    if inputs == 1 and method.parameter("t") is not None:
        helps = (*helps, "list both models there; `parameters: {t: 0}` takes the first as it is")
    return dataclasses.replace(
        found,
        message=f"the module `{module.name}`: {found.message}",
        labels=(Label(module.span, found.labels[0].text), Label(found.labels[0].span, "asked for here")),
        help=helps,
    )


def _layers(space: Space, stack: str, first: int, last: int) -> tuple[str, ...]:
    found = ((n, space.layer_of(n)) for n in space.names)
    return tuple([n for n, at in found if at and at[0].name == stack and first <= at[1] <= last])


def _covered(space: Space, place: str) -> Sequence[str]:
    """The tensors at a place that is a role, or a glob in quotes; none where there is no such
    place."""
    if place == "*":
        return space.names
    try:
        return tuple(space.select(path_of(place)).names)
    except MergecError:
        return ()


def _places_of(known: Known, names: Sequence[str]) -> list[str]:
    """Places that cover these tensors outside the layers: roles where there are some, else
    globs."""
    out: list[str] = []
    left = dict.fromkeys(names)
    for place in ("norm", "head", *known.family.places):
        covered = [n for n in _covered(known.space, place) if n in left]
        if not covered or set(_covered(known.space, place)) - set(names):
            continue
        for name in covered:
            del left[name]
        if place != "head" or known.has_head():
            out.append(place)
    return [*out, *(write_string(n) for n in left)]
