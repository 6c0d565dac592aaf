"""Which tensors of the output are computed alike (one equivalence class), found without making a
node for them.

What a statement's value is at a tensor depends on the tensors of the models that its term looks up
there (their dtypes and shapes, and which of them are one), on its numbers there, and on the names
that key its random masks. Two tensors that agree in the first two have the same nodes but for the
ranges that are read and the masks' keys; so one of them is made (`instantiate.py`), and the others
say what they read instead.

What reads a tensor that another output reads too may have nodes in common with it. It is made by
itself, and the graph finds what is shared.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from ...grammar.diagnostic import MergecError
from ...grammar.records import dataclass
from ..checkpoint.layouts import View
from ..family.family import Family
from ..family.parts import renamed
from ..graph.graph import EquivalenceClass, Node, StoredRange, below
from ..graph.masks import mask_key
from ..terms.lookup import corresponding, relocated
from ..terms.terms import (
    Among,
    Apply,
    Assembly,
    At,
    Choice,
    Leaf,
    Lora,
    NumberTerm,
    Region,
    Stack,
    Where,
    children,
    leaves,
    walk,
)
from ..terms.varying import resolve, varies
from .across import WHOLE_MODEL
from .vocabulary import Vocabulary

Range = tuple[int, str, int]
"""Model, stored tensor and first element: what identifies a range of a stored tensor."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a statement's value depends on at one tensor.

    Tensors of equal `key` are computed alike. `reads` are the ranges that the term looks up, each
    with its model's number, whether or not its value needs them in the end.
    """

    key: Hashable
    models: tuple[int, ...]
    reads: tuple[View, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A region as far as it is asked at one place: what it looks up there, and the changes of place
    below it."""

    leaves: tuple[Leaf, ...]
    numbers: tuple[object, ...]
    relocations: tuple[At | Stack | Assembly, ...]
    plain: bool


class RegionSignature:
    """What a region's value depends on, at tensors of an output of this family."""

    def __init__(self, region: Region, vocabulary: Vocabulary | None, family: Family) -> None:
        self._region, self._vocabulary, self._family = region, vocabulary, family
        self._parts: dict[int, _Part] = {}
        terms = list(walk(region))
        asked = {id(t): t for m in (m for t in terms if isinstance(t, Among) for m in t.models) for t in walk(m)}
        asked |= {id(t): t for t in terms}
        self.shared = any(isinstance(t, Apply) and t.op in WHOLE_MODEL for t in terms)
        """Whether the value is made of other tensors of the output too, so that none is like
        another."""
        self.adapted = any(isinstance(t, Lora) for t in asked.values())
        """Whether an adapter adds to it: to each tensor from factors of its own shape, if at
        all."""
        self._masks = [dict(t.attributes) for t in terms if isinstance(t, Apply) and t.op == "bernoulli"]
        # two models may be one checkpoint
        numbers = [t.model.number for t in asked.values() if isinstance(t, Leaf)]
        self._distinct = len(set(numbers)) == len(numbers)

    @property
    def plain(self) -> bool:
        """Whether the region looks its tensors up by the output's name alone and has no number that
        varies."""
        return self._part(self._region).plain

    def at(self, where: Where) -> Sight | None:
        """What the value at a tensor depends on; None where it is like no other's."""
        found: list[Hashable] = []
        reads: list[tuple[int, View]] = []
        if not self._look(self._region, where, found, reads):
            return None
        return self._sight(found, reads)

    def at_name(self, name: str) -> Sight | None:
        """The same for a `plain` region, of which the name is enough."""
        found: list[Hashable] = []
        reads: list[tuple[int, View]] = []
        for leaf in self._part(self._region).leaves:
            own = renamed(name, self._family, leaf.model.family)
            if not self._leaf(leaf, own, name, found, reads):
                return None
        return self._sight(found, reads)

    def equivalence(self, node: Node, sight: Sight, name: str, seed: int) -> tuple[EquivalenceClass, tuple[int, ...]]:
        """What those that are computed like `node`, which was made for the output `name`, have in
        common.

        Also which of a tensor's `reads` take the places of `EquivalenceClass.sources`.
        """
        masks = {mask_key(seed, name, m["label"], m["stream"]): (m["label"], m["stream"]) for m in self._masks}
        used = {_range(place): place for place in sources_below([node])}
        slots: dict[Range, int] = {}
        for k, (model, view) in enumerate(zip(sight.models, sight.reads, strict=True)):
            where = (model, view.stored, view.first)
            if where in used:
                slots.setdefault(where, k)
        return EquivalenceClass(tuple([used[r] for r in slots]), masks, seed), tuple(slots.values())

    # --- looking

    def _sight(self, found: list[Hashable], reads: list[tuple[int, View]]) -> Sight:
        models = tuple([model for model, _ in reads])
        if not self._distinct:
            first: dict[Range, int] = {}
            found.append(tuple([first.setdefault((m, v.stored, v.first), k) for k, (m, v) in enumerate(reads)]))
        return Sight(tuple(found), models, tuple([view for _, view in reads]))

    def _part(self, region: Region) -> _Part:
        part = self._parts.get(id(region))
        if part is None:
            part = self._parts[id(region)] = _part_of(region)
        return part

    def _look(self, region: Region, where: Where, found: list[Hashable], reads: list[tuple[int, View]]) -> bool:
        part = self._part(region)
        for leaf in part.leaves:
            if leaf.path is None:
                name: str | None = renamed(where.name, where.space.family, leaf.model.family)
            else:
                try:
                    name = corresponding(leaf, leaf.path, leaf.span, where)
                except MergecError as error:
                    if leaf.model.family.is_optional(where.name):
                        return False
                    found.append(_fault(error))
                    continue
            if name is None or not self._leaf(leaf, name, where.name, found, reads):
                return False
        for number in part.numbers:
            try:
                value = resolve(number, where)
            except MergecError as error:
                found.append(_fault(error))
            else:
                # by its text: 0.0 and -0.0 are equal, and so are 1 and True
                found.append(repr(value) if isinstance(value, int | float) else (str(type(value)), bool(value)))
        for relocation in part.relocations:
            try:
                to = relocated(relocation, where)
            except MergecError as error:
                if any(leaf.model.family.is_optional(where.name) for leaf in leaves(relocation)):
                    return False
                found.append(_fault(error))
                continue
            found.append(to and id(to[0]))
            if to is None or not self._look(*to, found, reads):
                return False
        return True

    def _leaf(self, leaf: Leaf, name: str, output: str, found: list[Hashable], reads: list[tuple[int, View]]) -> bool:
        model = leaf.model
        view = model.tensors.get(name)
        if view is None:
            primary = model.aliases.get(name)
            if primary is None:
                # what an optional tensor's absence does to a function over several models is found
                # out by making it
                if model.family.is_optional(name) or model.family.is_optional(output):
                    return False
                found.append(_absence(leaf, name))
                return True
            view = model.tensors[primary]
        # rows that are gathered are of several models, and few tensors have them
        if self._vocabulary is not None and model.family.vocabulary.get(name) == 0:
            return False
        found.append(model.dtype(view))
        found.append(view.shape)
        if model.bundles:
            found.append(any(view.stored in b.modules for b in model.bundles))
        reads.append((model.number, view))
        return True


def _part_of(region: Region) -> _Part:
    found: list[Leaf] = []
    numbers: list[object] = []
    relocations: list[At | Stack | Assembly] = []
    for term in walk(region, _asked_here):
        if isinstance(term, Leaf):
            found.append(term)
        elif isinstance(term, At | Stack | Assembly):
            relocations.append(term)
        elif isinstance(term, Choice):
            numbers.append(term.condition)
        elif isinstance(term, NumberTerm) and varies(term.value):
            numbers.append(term.value)
    plain = not numbers and not relocations and all(leaf.path is None for leaf in found)
    return _Part(tuple(found), tuple(numbers), tuple(relocations), plain)


def _asked_here(term: Region) -> tuple[Region, ...]:
    """What is asked at the place of a region: nothing below a change of place; of a function its
    models too."""
    if isinstance(term, At | Stack | Assembly):
        return ()
    return (*children(term), *term.models) if isinstance(term, Among) else children(term)


def _absence(leaf: Leaf, name: str) -> Hashable:
    """In which way a model lacks a tensor: what `Tensors.node` distinguishes."""
    model = leaf.model
    at = model.space.layer_of(name)
    return "no layer" if at is not None and at[1] >= model.space.depths.get(at[0].name, 0) else "missing"


def _fault(error: MergecError) -> Hashable:
    """A value that can't be worked out: wrong in the same way where code and place are the same."""
    return tuple([(d.code, d.labels[0].span if d.labels else None) for d in error.diagnostics])


def _range(place: StoredRange) -> Range:
    return place.model, place.stored, place.first


def sources_below(nodes: Iterable[Node]) -> list[StoredRange]:
    """What the nodes read."""
    return [n.attribute("range") for n in below(nodes) if n.op == "source"]


def read_twice(lone: Iterable[Node], reads: Iterable[tuple[EquivalenceClass, tuple[View, ...]]]) -> set[Range]:
    """Of the ranges that outputs read, those that more than one of them does.

    `lone` are values of outputs that are like no other's; all that they read counts, as they may
    share it.
    """
    seen = {_range(place) for place in sources_below(lone)}
    twice = set(seen)
    for like, views in reads:
        for source, view in zip(like.sources, views, strict=True):
            where = (source.model, view.stored, view.first)
            if where in seen:
                twice.add(where)
            seen.add(where)
    return twice


def is_shared(like: EquivalenceClass, views: tuple[View, ...], twice: Mapping[Range, object] | set[Range]) -> bool:
    """Whether an output reads something that another does too."""
    return any((s.model, v.stored, v.first) in twice for s, v in zip(like.sources, views, strict=True))
