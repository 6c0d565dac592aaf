"""What config.json says of the layers of each stack: how many there are, and what each is by
itself.

Each layer of the output is to be what it is where it comes from. Lists with an item a layer and
numbers of layers go along with the layers; a rule over the position that does not say the same of
the new order gives way to the list that does, where the type has one, else to another value of its
keys. Where no value does, the order is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ...grammar.diagnostic import Diagnostic, finding
from ...grammar.records import dataclass
from ..checkpoint.model import Model
from ..elaborate.elaborate import Elaboration
from ..family.config_keys import config_value, homes, place_of
from ..family.config_rules import Undecided, rule
from ..family.family import Family, LayerFact, LayerStack
from ..family.layer_facts import StackFacts, lookup, ordinary_depth
from .layer_parts import Mixed, Origin, Parts, about, layer_parts, settled
from .rule_keys import fitting, key_uses

_MOST_SHOWN = 4
_ANY = object()
"""What a layer is to be that comes from a model of a family whose layers do not differ in this."""
_UNTOLD = object()
"""What a layer is to be whose own config does not say what it is."""


@dataclass(frozen=True, slots=True)
class StackOrder:
    """The layers of a stack of the output: `sources` as in `Elaboration.layer_sources`, `ordinary`
    how many of them the config is to count as the depth, `before` how many it counted."""

    stack: LayerStack
    sources: Sequence[tuple[Model, int] | None]
    ordinary: int
    before: int

    @property
    def extra(self) -> int:
        return len(self.sources) - self.ordinary


def stack_order(stack: LayerStack, elaboration: Elaboration, origin: Model) -> StackOrder | Diagnostic:
    """Which layers of the output are ordinary ones; E0476 where layers that the config of their
    model counts apart stand between others, or are more than a model has."""
    sources = elaboration.layer_sources.get(stack.name, [])
    apart = [source is not None and _is_extra(stack.name, *source) for source in sources]
    first = apart.index(True) if True in apart else len(sources)
    most = max((_extra(stack.name, source[0]) for source in sources if source is not None), default=0)
    misplaced = next((j for j in range(first, len(sources)) if not apart[j]), None)
    if misplaced is not None or len(sources) - first > most:
        model, layer = sources[first] or (origin, 0)
        return finding(
            "E0476",
            f"layer {first} of `{stack.name}` comes from layer {layer} of `{model.label}`,"
            " which the model's depth does not count",
            _span(elaboration, stack, first) or origin.span,
            "not an ordinary layer",
            notes=f"`{stack.extra_key}` counts it: it predicts further tokens, and can only stand at the end",
            help=f"take one of `{model.label}.{stack.name}[0..{_ordinary(stack.name, model) - 1}]`",
        )
    before = ordinary_depth(stack, origin.config, origin.space.depths.get(stack.name, 0))
    return StackOrder(stack, sources, first, before)


def follow_layers(
    config: dict[str, Any], order: StackOrder, elaboration: Elaboration, origin: Model, given: Mapping[str, Any]
) -> list[Diagnostic]:
    """Makes a config say of each layer what it is where it comes from. Errors are E0474, E0475 and
    E0477, warnings W0591. What `output(config=…)` gives stays to its author."""
    return list(_Following(config, order, elaboration, origin, given).run())


class _Following:
    def __init__(
        self,
        config: dict[str, Any],
        order: StackOrder,
        elaboration: Elaboration,
        origin: Model,
        given: Mapping[str, Any],
    ) -> None:
        self.config, self.order, self.elaboration, self.origin = config, order, elaboration, origin
        self.family = origin.family
        self.stack = order.stack
        self.known: dict[tuple[LayerFact, int], tuple[StackFacts, LayerFact] | None] = {}
        self.parts: dict[int, Parts] | None = None
        self.facts = [fact for fact in self.stack.facts if not any(any(homes(given, key)) for key in _keys(fact))]
        self.sources: dict[LayerFact, list[Origin | None]] = {}
        self.wanted: dict[LayerFact, list[Any]] = {}

    def run(self) -> Iterator[Diagnostic]:
        own = [(self.origin, j) for j in range(self.origin.space.depths.get(self.stack.name, 0))]
        moved: list[LayerFact] = []
        for fact in self.facts:
            self.sources[fact] = list(self.order.sources)
            if self._differ(fact):
                yield from self._settle(fact)
            self.wanted[fact] = [self._of(fact, source) for source in self.sources[fact]]
            if self.sources[fact] != own:
                moved.append(fact)
        for fact in moved:
            if fact.items is not None and self._unknown(fact):
                sources = self.sources[fact]
                first = next(j for j, source in enumerate(sources) if source != (self.origin, j))
                yield self._untold(fact, fact.items, first)
                return
            for key in _carried(fact):
                yield from self._carry(fact, key)
        done: list[LayerFact] = []
        for fact in moved:
            done.append(fact)
            if self._wrong(self.config, [fact]) is None:
                continue
            if not self._list(fact) and not self._other_keys(fact, done):
                yield self._refused(fact)
                return

    def _unknown(self, fact: LayerFact) -> bool:
        """Whether the layers of a type differ in something by a rule that no table has, and the
        config leaves it to that rule. The first layers alone are what they were."""
        sources = self.sources[fact]
        first = all(source == (self.origin, j) for j, source in enumerate(sources))
        silent = fact.rule is None and not any(homes(self.config, fact.items or ""))
        return silent and not first and self.family.version is not None

    # --- what is wanted, what there is

    def _of(self, fact: LayerFact, source: Origin | None) -> Any:
        """What a layer is where it comes from."""
        if source is None:
            return _ANY
        model, layer = source
        key = (fact, model.number)
        if key not in self.known:
            self.known[key] = _same_fact(self.family, self.stack, fact, model)
        found = self.known[key]
        try:
            return _ANY if found is None else found[0].value(found[1], layer)
        except Undecided:
            return _UNTOLD

    def _said(self, fact: LayerFact, source: Origin) -> Any:
        """The same; None where nothing is said of it."""
        value = self._of(fact, source)
        return None if value is _ANY or value is _UNTOLD else value

    def _differ(self, fact: LayerFact) -> bool:
        """Whether layers of the models that are merged differ in a fact at all."""
        first: Any = None
        for model in self.elaboration.models:
            for layer in range(_ordinary(self.stack.name, model)):
                value = self._said(fact, (model, layer))
                if value is not None and first is not None and value != first:
                    return True
                first = value if first is None else first
        return False

    def _settle(self, fact: LayerFact) -> Iterator[Diagnostic]:
        """Finds where each layer has a fact from; of layers that are made of two kinds one message
        each of those that stay apart, and those that are blended."""
        if self.parts is None:
            self.parts = layer_parts(self.elaboration, self.stack)
        sources = self.sources[fact]
        mixed: list[tuple[int, Mixed]] = []
        for layer in range(self.order.ordinary):
            parts = self.parts.get(layer, {})
            every = [origin for origins in parts.values() for origin in origins]
            values = [self._said(fact, origin) for origin in every]
            concerned = about(self.family, self.stack, parts, [value for value in values if value is not None])
            sources[layer], found = settled(concerned, layer, sources[layer], partial(self._said, fact))
            if found is not None:
                mixed.append((layer, found))
        for apart in (True, False):
            some = [each for each in mixed if each[1].apart is apart]
            if some:
                yield self._two_kinds(fact, *some[0], others=len(some) - 1)

    def _now(self, config: Mapping[str, Any]) -> StackFacts:
        return StackFacts(self.family, self.stack, config, self.order.ordinary)

    def _wrong(self, config: Mapping[str, Any], facts: Sequence[LayerFact]) -> tuple[LayerFact, int] | None:
        """The first layer that a config says something else of than is wanted."""
        now = self._now(config)
        for fact in facts:
            for layer, wanted in enumerate(self.wanted[fact][: self.order.ordinary]):
                if wanted is _ANY or wanted is _UNTOLD:
                    continue
                try:
                    if now.value(fact, layer) == wanted:
                        continue
                except Undecided:
                    pass
                return fact, layer
        return None

    # --- three ways to say it

    def _carry(self, fact: LayerFact, key: str) -> Iterator[Diagnostic]:
        """A list, or a text with a letter a layer, goes along with the layers."""
        stored = self.origin.space.depths.get(self.stack.name, 0)
        for home, inner in list(homes(self.config, key)):
            row = home[inner]
            is_row = isinstance(row, list) or (isinstance(row, str) and key != fact.items)
            if not is_row or not row or len(row) not in (self.order.before, stored):
                continue
            count = self.order.ordinary if len(row) == self.order.before else len(self.order.sources)
            items: list[Any] = []
            for j in range(count):
                item = self._item(fact, key, row, j)
                if item is _UNTOLD:
                    yield self._untold(fact, key, j)
                    return
                items.append(item)
            if isinstance(row, list):
                home[inner] = items
            elif all(isinstance(item, str) for item in items):
                home[inner] = "".join(items)

    def _item(self, fact: LayerFact, key: str, row: Sequence[Any], j: int) -> Any:
        source = self.sources[fact][j]
        wanted = self.wanted[fact][j]
        if source is not None and (key != fact.items or wanted is _UNTOLD):
            own = config_value(source[0].config, key)
            return own[source[1]] if isinstance(own, list | str) and source[1] < len(own) else _UNTOLD
        if wanted is not _ANY:
            return wanted
        # of a family whose layers are all alike in this
        return row[j] if j < len(row) else row[0] if all(each == row[0] for each in row) else _UNTOLD

    def _list(self, fact: LayerFact) -> bool:
        """Writes the list that the type has for this."""
        if fact.items is None:
            return False
        target, inner = place_of(self.config, fact.items)
        items = [self._filled(fact, j) for j in range(self.order.ordinary)]
        if not isinstance(target, dict) or _UNTOLD in items or any(item is _ANY for item in items):
            return False
        found = list(homes(self.config, fact.items)) or [(target, inner)]
        for home, key in found:
            home[key] = list(items)
        return True

    def _filled(self, fact: LayerFact, j: int) -> Any:
        """What a layer is to be: where any will do, what it is."""
        wanted = self.wanted[fact][j]
        if wanted is not _ANY and wanted is not _UNTOLD:
            return wanted
        try:
            return self._now(self.config).value(fact, j)
        except Undecided:
            return wanted

    def _other_keys(self, fact: LayerFact, facts: Sequence[LayerFact]) -> bool:
        """Gives the keys of the rule other values, under which all that was right stays so."""
        if fact.rule is None:
            return False

        def with_(changes: Mapping[str, Any]) -> dict[str, Any] | None:
            config = self.config
            for key, value in changes.items():
                changed = _with(config, key.split("."), value)
                if changed is None:
                    return None
                config = changed
            return config

        def fits(changes: Mapping[str, Any]) -> bool:
            config = with_(changes)
            return config is not None and self._wrong(config, facts) is None

        family = self.family
        fixed = [key for key in (family.experts_key, family.vocab_key, self.stack.depth_key) if key is not None]
        wanted = [self._filled(fact, j) for j in range(self.order.ordinary)]
        said = lookup(family, self.config)
        found = fitting(rule(fact.rule), said, wanted, self.order.ordinary, fits, fixed)
        if found is None:
            return False
        for key, value in found.items():
            target, inner = place_of(self.config, key)
            for home, name in list(homes(self.config, key)) or [(target, inner)]:
                home[name] = value
        return True

    # --- messages

    def _two_kinds(self, fact: LayerFact, layer: int, mixed: Mixed, others: int) -> Diagnostic:
        (one, i), (other, k) = mixed.one, mixed.other
        said = [_shown(self._said(fact, origin)) for origin in (mixed.one, mixed.other)]
        key = _main_key(fact)
        place = f"`{self.stack.name}[{layer}]`"
        notes = [
            f"by `{key}`, layer {i} of `{one.label}` is {said[0]}, and layer {k} of `{other.label}` is {said[1]}"
            if fact.items is not None
            else f"by `{fact.rule}`, it is {said[0]} for layer {i} of `{one.label}`, and {said[1]} for layer {k} of"
            f" `{other.label}`"
        ]
        if others:
            notes.append(f"so {'is one more layer' if others == 1 else f'are {others} more layers'}")
        span = _span(self.elaboration, self.stack, layer) or self.origin.span
        if mixed.apart:
            message = f"{place} is put together of layers of two kinds, and config.json can say only one"
            help_ = ["take such layers whole", f"say what each layer is to be: `output(config={{{key}: …}})`"]
            return finding("E0475", message, span, "parts of both", notes=notes, help=help_)
        message = f"{place} is made of layers that are of two kinds by the models' config.json"
        help_ = [f"if it is to be another, say so: `output(config={{{key}: …}})`"]
        return finding("W0591", message, span, f"it goes out as that of `{one.label}`", notes=notes, help=help_)

    def _refused(self, fact: LayerFact) -> Diagnostic:
        wrong = self._wrong(self.config, [fact])
        assert wrong is not None
        layer = wrong[1]
        model, number = self.sources[fact][layer] or (self.origin, layer)
        place = f"{model.label}.{self.stack.name}"
        key = _main_key(fact)
        notes = [f"the rule is `{fact.rule}`"] if fact.rule is not None else []
        help_ = [f"another order of layers, or `output(config={{{key}: …}})`"]
        try:
            now = self._now(self.config).value(fact, layer)
            fits = _same_fact(self.family, self.stack, fact, model)
            others = [] if fits is None else [i for i in range(fits[0].depth) if _is(fits[0], fits[1], i, now)]
            if others:
                shown = ", ".join(map(str, others[:_MOST_SHOWN])) + (", …" if len(others) > _MOST_SHOWN else "")
                help_.insert(0, f"of `{place}` these could stand there: {shown}")
        except Undecided:
            pass
        return finding(
            "E0474",
            f"no `{key}` makes layer {layer} what layer {number} of `{model.label}` is",
            _span(self.elaboration, self.stack, layer) or self.origin.span,
            f"`{place}[{number}]` can't be said to stand here",
            notes=notes,
            help=help_,
        )

    def _untold(self, fact: LayerFact, key: str, layer: int) -> Diagnostic:
        model, number = self.sources[fact][layer] or (self.origin, layer)
        return finding(
            "E0477",
            f"`{key}` has an item for each layer, and none is known for layer {number} of `{model.label}`",
            _span(self.elaboration, self.stack, layer) or self.origin.span,
            f"layer {layer} of the output",
            notes=f"the config.json of `{model.label}` has no such list",
            help=f"say what each layer is: `output(config={_nested(key)})`",
        )


def _nested(key: str) -> str:
    """A list under a dotted key, as a recipe writes it."""
    outer, _, rest = key.partition(".")
    return f"{{{outer}: {_nested(rest) if rest else '[…]'}}}"


def _same_fact(family: Family, stack: LayerStack, fact: LayerFact, model: Model) -> tuple[StackFacts, LayerFact] | None:
    """A fact as the config of another model tells it; None where its family knows no such thing."""
    own = stack_of(model, stack.name)
    if own is None:
        return None
    facts = StackFacts(model.family, own, model.config, _ordinary(own.name, model))
    if fact in own.facts:
        return facts, fact
    if model.family.name == family.name:
        return StackFacts(family, stack, model.config, facts.depth), fact
    name = _main_key(fact).rpartition(".")[2]
    return next(((facts, other) for other in own.facts if _main_key(other).rpartition(".")[2] == name), None)


def stack_of(model: Model, name: str) -> LayerStack | None:
    """The stack of this name, else the only one, else that of the text model."""
    stacks = {stack.name: stack for stack in model.family.stacks}
    found = stacks.get(name) or stacks.get("text.layers")
    return found or (next(iter(stacks.values())) if len(stacks) == 1 else None)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _is(facts: StackFacts, fact: LayerFact, layer: int, value: Any) -> bool:
    try:
        return bool(facts.value(fact, layer) == value)
    except Undecided:
        return False


def _keys(fact: LayerFact) -> list[str]:
    return [*([fact.items] if fact.items is not None else []), *(rule(fact.rule).keys if fact.rule is not None else ())]


def _carried(fact: LayerFact) -> list[str]:
    """The keys whose value has an item a layer."""
    rows = key_uses(rule(fact.rule)).rows if fact.rule is not None else ()
    return list(dict.fromkeys([*([fact.items] if fact.items is not None else []), *rows]))


def _main_key(fact: LayerFact) -> str:
    """The key that a person would look for."""
    if fact.items is not None:
        return fact.items
    found = rule(fact.rule or "0")
    uses = key_uses(found)
    return next(iter((*uses.numbers, *uses.rows, *uses.steps, *found.keys)), "layers")


def _with(config: Mapping[str, Any], key: Sequence[str], value: Any) -> dict[str, Any] | None:
    """A copy of a config, as deep as it must be, that says something else under a key; None where a
    part of the key leads nowhere."""
    name, *rest = key
    if not rest:
        return {**config, name: value}
    inner = config.get(name)
    changed = _with(inner, rest, value) if isinstance(inner, Mapping) else None
    return None if changed is None else {**config, name: changed}


def _ordinary(stack: str, model: Model) -> int:
    own = stack_of(model, stack)
    return 0 if own is None else ordinary_depth(own, model.config, model.space.depths.get(own.name, 0))


def _extra(stack: str, model: Model) -> int:
    own = stack_of(model, stack)
    return 0 if own is None else model.space.depths.get(own.name, 0) - _ordinary(stack, model)


def _is_extra(stack: str, model: Model, layer: int) -> bool:
    own = stack_of(model, stack)
    return own is not None and own.extra_key is not None and layer >= _ordinary(stack, model)


def _span(elaboration: Elaboration, stack: LayerStack, layer: int) -> Any:
    head = f"{stack.head}{layer}."
    return next((o.span for o in elaboration.graph.outputs if o.name.startswith(head) and o.span is not None), None)
