"""Layers that were moved to where the loader makes layers of another kind: for types of which
nothing says how the kind of a layer follows from the config.

In a model whose layers differ in their tensors, a loader makes each layer by what the config says
of it, or by its number alone. As far as the config's facts tell the template's layers apart, a
layer of the output must have the tensors of those that have its facts. Where they don't, a layer
must stand where the template has one of its kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...grammar.diagnostic import Diagnostic, finding
from ..checkpoint.model import Model
from ..elaborate.elaborate import Elaboration
from ..family.config_rules import Undecided
from ..family.family import LayerStack
from ..family.layer_facts import StackFacts, ordinary_depth
from ..family.space import Space

Parts = frozenset[str]
"""The names below a layer."""
_MOST_NAMED = 8
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ*-|")
"""Of which texts with a letter a layer are made, such as Nemotron-H's `hybrid_override_pattern`."""


def misplaced(elaboration: Elaboration, origin: Model, config: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """An error (E0473) for the first layer of each stack whose kind the output's `config` can't be
    known to say."""
    template = elaboration.template
    for stack in template.family.stacks:
        sources = elaboration.layer_sources.get(stack.name, [])
        before = _parts(template.space, stack)
        before = before[: ordinary_depth(stack, origin.config, len(before))]
        if len(set(before)) < 2 or all(s == (template, j) for j, s in enumerate(sources)):
            continue
        after = _parts(elaboration.space, stack)
        after = after[: ordinary_depth(stack, config, len(after))]
        own = _facts(template, stack, origin.config, len(before))
        facts = _facts(template, stack, config, len(after))
        for j, parts in enumerate(after):
            if j < len(sources) and sources[j] == (template, j):
                continue
            known = _expected(j, before, own, facts)
            if parts != known:
                yield _error(elaboration, stack, j, parts, known, before)
                break


def says_of_layers(given: Mapping[str, Any]) -> bool:
    """Whether a key that a recipe gives may say what kinds the layers are: a list, a number or a
    text with a letter a layer can, a switch and the id of a token can't."""
    for key, value in given.items():
        letters = isinstance(value, str) and len(value) > 1 and set(value) <= _LETTERS
        number = type(value) is int and not key.endswith("_id")
        below = isinstance(value, Mapping) and says_of_layers(value)
        if letters or number or below or isinstance(value, list | tuple):
            return True
    return False


def _expected(j: int, before: Sequence[Parts], own: Sequence[Any], facts: Sequence[Any]) -> Parts | None:
    """The names that a loader gives a layer of the output; None where that is not known."""
    if facts[j] is not None:
        alike = {parts for parts, fact in zip(before, own, strict=True) if fact == facts[j]}
        if len(alike) == 1:
            return alike.pop()
    return before[j] if j < len(before) else None


def _parts(space: Space, stack: LayerStack) -> list[Parts]:
    """What each layer has, optional tensors left aside."""
    found: dict[int, set[str]] = {j: set() for j in range(space.depths.get(stack.name, 0))}
    for name in space.names:
        at = space.layer_of(name)
        if at is not None and at[0].name == stack.name and at[1] in found and not space.family.is_optional(name):
            found[at[1]].add(at[2])
    return [frozenset(found[j]) for j in sorted(found)]


def _facts(model: Model, stack: LayerStack, config: Mapping[str, Any], depth: int) -> list[Any]:
    """What a config says of each layer; None where it says nothing."""
    told = StackFacts(model.family, stack, config, depth)
    out: list[Any] = []
    for j in range(depth):
        try:
            out.append([told.value(fact, j) for fact in stack.facts] or None)
        except Undecided:
            out.append(None)
    return out


def _error(
    elaboration: Elaboration, stack: LayerStack, j: int, parts: Parts, known: Parts | None, before: Sequence[Parts]
) -> Diagnostic:
    template = elaboration.template
    alike = [k for k, each in enumerate(before) if each == parts]
    shown = ", ".join(map(str, alike[:_MOST_NAMED])) + (", …" if len(alike) > _MOST_NAMED else "")
    which = f"layer {shown}" if len(alike) == 1 else f"layers {shown}"
    notes = (
        [f"{which} of `{template.label}` {'has' if len(alike) == 1 else 'have'} the tensors of this one"]
        if alike
        else []
    )
    if known is not None:
        more, less = sorted(parts - known), sorted(known - parts)
        label = f"`{more[0]}` is one too many there" if more else f"`{less[0]}` is missing there"
    else:
        label = "what is to stand there is not known"
    return finding(
        "E0473",
        f"`{stack.name}[{j}]` is of another kind than config.json is known to say",
        template.span,
        label,
        notes=[*notes, f"layers of family `{template.family.name}` differ, by a rule that is not known here"],
        help=[
            *(
                ["put layers where the template has layers of their kind"]
                if alike
                else ["take layers that have the tensors of the template's"]
            ),
            "or say it in `output(config={…})`, if config.json has a key for it",
        ],
    )
