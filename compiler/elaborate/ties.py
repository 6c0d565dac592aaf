"""Ties of the output: those of its template, less what statements untie, and those that `tie(…)`
makes.

What a tie that no statement asks for would drop without a word is an error (E0310): an input's own
head, and what an adapter does to one of the two tensors alone.

PEFT adapts modules, not the storage that they share: LoRA on the head of a tied model leaves its
embedding as it was. Only where the adapter's config says so (`ensure_weight_tying`) does a tensor
of which the adapter says nothing get what another of the names gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...grammar.diagnostic import Diagnostic, Label, MergecError, finding
from ...grammar.records import dataclass
from ...grammar.source import Span
from ..checkpoint.adapter import Adapter, AdapterPart
from ..checkpoint.catalog import StoredTensor
from ..checkpoint.model import Model
from ..family.family import TieRule
from ..family.parts import renamed
from ..family.space import Space
from ..ops.shapes import shape_text
from ..terms.terms import Tie, is_region, models_in, picks
from .coverage import Covering
from .vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class KeptTie:
    """A tie of the output that it has from its template, not from a statement, as one statement is
    concerned.

    `covering` gives a value to the output's tensor `name`, or would, did it not share storage with
    `other`; `alias` is the one of the two that is not stored. `untied` is the value that would
    untie it, as text; in an `always` tie nothing can. `places` are alias and primary as people
    write them, `template` is its label.
    """

    covering: Covering
    name: str
    other: str
    alias: str
    untied: str
    always: bool
    places: tuple[str, str]
    template: str

    def dropped(self, message: str, label: str, keep: str, *more: Label) -> Diagnostic:
        """E0310 for what would be lost, with the ways out; `keep` says what the second is for."""
        place, first = self.places
        note = f"the output is tied because its template, `{self.template}`, is"
        other = f"to keep {keep}, untied: `{place} = {self.untied}`"
        if self.always:
            note = f"`{place}` always shares storage with `{first}` in this family"
            whole = self.untied if self.untied.isidentifier() else f"({self.untied})"
            other = f"to keep it for both: `{first} = {whole}.{place}` and `{place} = tie({first})`"
        value = self.covering.assignment.statement.value.span
        accept = f"to accept that: `{place} = tie({first})`"
        return finding("E0310", message, (Label(value, label), *more), notes=note, help=(accept, other))


def output_ties(
    template: Model, space: Space, owner: Mapping[str, Covering], vocabulary: Vocabulary | None
) -> tuple[dict[str, str], list[KeptTie], list[Diagnostic]]:
    """Each output name that is not stored, with the name whose storage it shares; which of these
    ties no statement asks for; and the errors on the way."""
    ties = _Ties(template, space, owner)
    found = ties.run()
    kept = ties.kept(found)
    ties.mixed_heads(kept, vocabulary)
    return found, kept, ties.errors


def ended_together(template: Model, space: Space, ties: Mapping[str, str]) -> dict[str, str]:
    """Of an output's ties those that end as another of the same config key does: each name, with
    the one whose value it is to have, both stored.

    By the one key a loader either makes all of them one tensor or each its own.
    """
    ended: dict[str, str] = {}
    rules_of: dict[str, list[TieRule]] = {}
    for rule in template.family.ties:
        if rule.config_key is not None:
            # that of the text model is the whole model's too (`config_keys.py`)
            rules_of.setdefault(rule.config_key.removeprefix("text_config."), []).append(rule)
    for rules in rules_of.values():
        aliases = [(alias, rule.primary) for rule in rules for alias in rule.aliases if alias in template.aliases]
        if any(alias in space.names and alias not in ties for alias, _ in aliases):
            ended |= {alias: ties[alias] for alias, primary in aliases if ties.get(alias) == primary}
    return ended


class _Ties:
    def __init__(self, template: Model, space: Space, owner: Mapping[str, Covering]) -> None:
        self.template, self.space, self.owner = template, space, owner
        self.errors: list[Diagnostic] = []
        self.always = {a for rule in template.family.ties if rule.config_key is None for a in rule.aliases}

    def run(self) -> dict[str, str]:
        out: dict[str, str] = {}
        for alias, primary in self.template.aliases.items():
            own = self.owner.get(alias)
            if alias in self.always or own is None or primary in own.names or isinstance(own.assignment.value, Tie):
                out[alias] = primary
        self.idle()
        for name, covering in self.owner.items():
            value = covering.assignment.value
            if isinstance(value, Tie):
                target = self.primary(name, covering, value, out)
                if target is not None:
                    out[name] = target
        return out

    def wrong(self, message: str, label: Label, *help: str) -> None:
        self.errors.append(finding("E0312", message, [label], help=help))

    def idle(self) -> None:
        """Statements for nothing but names that the family never stores by themselves."""
        for covering in {id(c): c for c in self.owner.values()}.values():
            assignment = covering.assignment
            if isinstance(assignment.value, Tie) or not all(n in self.always for n in covering.names):
                continue
            name = next(iter(covering.names))
            primary = self.template.aliases.get(name)
            if primary is not None and primary not in covering.names:
                self.wrong(
                    f"`{name}` always shares storage with `{primary}` in family `{self.template.family.name}`",
                    Label(assignment.path.span, "can't have a value of its own"),
                    f'`"{primary}" = {assignment.statement.value.span.text}`',
                )

    def primary(self, name: str, covering: Covering, value: Tie, ties: Mapping[str, str]) -> str | None:
        """What `tie(…)` ties a name to; None where that is nothing new, or wrong."""
        try:
            target = self.space.select(value.path)
        except MergecError as error:
            self.errors.extend(error.diagnostics)
            return None
        found = target.by_coordinate.get(covering.names[name])
        if found is None:
            if name not in self.always:
                label = Label(value.span, "can't be tied")
                self.wrong(f"`{value.path}` has no tensor that corresponds to `{name}`", label)
            return None
        primary = ties.get(found, found)
        shapes = [known[1].shape for n in (name, primary) if (known := self.template.find(n))]
        if len(set(shapes)) > 1:
            first, second = (shape_text(s) for s in shapes)
            self.wrong(
                f"`{name}` is {first} and `{primary}` is {second}, so they can't be tied",
                Label(value.span, "shapes differ"),
            )
            return None
        if primary == name:
            if self.template.aliases.get(found) != name:
                self.wrong(f"`{name}` can't be tied to itself", Label(value.span, "the same place"))
            return None
        if any(rule.primary == name and primary in rule.aliases for rule in self.template.family.ties):
            here, there = f"{covering.assignment.path}", f"{value.path}"
            self.wrong(
                f"this family stores a tied tensor as `{name}`, not as `{primary}`",
                Label(value.span, "tied the wrong way round"),
                f"give `{here}` the value and tie the other: `{there} = tie({here})`",
            )
            return None
        return primary

    def kept(self, ties: Mapping[str, str]) -> list[KeptTie]:
        found = []
        for alias, primary in ties.items():
            source, own = self.owner.get(primary), self.owner.get(alias)
            if source is None or (own is not None and isinstance(own.assignment.value, Tie)):
                continue
            given = source.assignment.value
            picked = is_region(given) and picks(given)[0]
            for covering, name, other in ((source, primary, alias), (own, alias, primary)):
                if covering is None:
                    continue
                # what is picked for the one is not what the other would get
                value = own if covering is source and own is not source and picked else covering
                text = value.assignment.statement.value.span.text if value is not None else self.template.label
                places = self.place(alias), self.place(primary)
                always = alias in self.always
                found.append(KeptTie(covering, name, other, alias, text, always, places, self.template.label))
        return found

    def mixed_heads(self, kept: Sequence[KeptTie], vocabulary: Vocabulary | None) -> None:
        """Inputs whose own head, or rows of it, the tied output would drop."""
        seen: set[str] = set()
        for tie in kept:
            models = models_in(tie.covering.assignment.value)
            primary = tie.other if tie.name == tie.alias else tie.name
            if vocabulary is not None:
                models = vocabulary.read_for(models, (tie.name, tie.other), self.space.family)
            # equal bytes under both names are not lost under one
            model = next((m for m in models if self.has_own(m, tie.alias, primary)), None)
            if model is not None and tie.alias not in seen:
                seen.add(tie.alias)
                place, first = tie.places
                self.errors.append(
                    tie.dropped(
                        f"`{model.label}` has its own `{place}`, but the output ties it to `{first}`",
                        f"would drop `{tie.alias}` of `{model.label}`",
                        "a trained one",
                        Label(model.span, "stores its own"),
                    )
                )

    def has_own(self, model: Model, alias: str, primary: str) -> bool:
        """Whether a model stores a tensor of its own where the output ties two names."""
        one, other = (renamed(name, self.space.family, model.family) for name in (alias, primary))
        return one in model.tensors and not model.are_one(one, other)

    def place(self, name: str) -> str:
        """The role that a tensor has, or its name as a glob."""
        places = self.template.family.places
        return next((r for r, modules in places.items() if any(name.startswith(m) for m in modules)), f'"{name}"')


# --- what an adapter does to tensors that are tied ------------------------------------------------


def change_of(adapter: Adapter, model: Model, name: str, span: Span) -> AdapterPart | None:
    """What the adapter does to the model's canonical tensor `name`. Raises MergecError (E0453)."""
    bound = adapter.bound(model, span)
    if name in bound or not adapter.config.tied:
        return bound.get(name)
    return next((bound[other] for other in sharing(model, name) if other in bound), None)


def sharing(model: Model, name: str) -> list[str]:
    """The other names of a tensor's storage, that under which it is stored first."""
    primary = model.aliases.get(name, name)
    names = [primary, *(alias for alias, other in model.aliases.items() if other == primary)]
    return [other for other in names if other != name]


def same_change(adapter: Adapter, one: AdapterPart | None, two: AdapterPart | None) -> bool:
    """Whether two tensors of one shape are known to be changed equally: by equal tensors, and by
    equal products."""
    if one is None or two is None:
        return one is two
    if (one.first, one.piece) != (two.first, two.piece):
        return False
    first, second = one.change, two.change
    if first is second:
        return True
    if one.turned != two.turned and (first.magnitude is not None or second.magnitude is not None):
        return False  # one number for each row of the one, for each column of the other
    a, b = first.vector, second.vector
    if (a is None) != (b is None) or (a is not None and b is not None and a[1] != b[1]):
        return False
    return (
        _equal(adapter, first.replaced, second.replaced)
        and _equal(adapter, first.magnitude, second.magnitude)
        and _equal(adapter, a and a[0], b and b[0])
        and _same_product(adapter, one, two)
    )


def _same_product(adapter: Adapter, one: AdapterPart, two: AdapterPart) -> bool:
    """Whether what is added is equal: B·A and (B'·A')ᵀ are where A is B' transposed, and B is A'
    transposed."""
    first, second = one.change.product, two.change.product
    if first is None or second is None:
        return first is second
    if first.scale != second.scale:
        return False
    if one.turned == two.turned:
        return _equal(adapter, first.a, second.a) and _equal(adapter, first.b, second.b)
    pairs = ((first.a, second.b), (second.a, first.b))
    return all(adapter.same_bytes(a.name, b.name, turned=True) for a, b in pairs)


def _equal(adapter: Adapter, one: StoredTensor | None, two: StoredTensor | None) -> bool:
    if one is None or two is None:
        return one is two
    return (one.dtype, one.shape) == (two.dtype, two.shape) and adapter.same_bytes(one.name, two.name)
