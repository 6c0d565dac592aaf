"""Whether a checkpoint's config.json says what its tensors say: the reading side of
`emit/config.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...grammar.records import dataclass
from ..family.config_keys import config_value
from ..family.expected import differences
from ..family.family import Family, stack_index
from ..family.layer_facts import ordinary_depth
from ..family.patterns import pattern
from .model import Model
from .ties import is_tied

_OWN_CODE = "auto_map"
"""Code beside the weights makes the model, in which layers may lack parts that are pruned away."""
_SHARED_LAYERS = "num_hidden_groups"
"""ALBERT's number of layers that are stored, each of which is used for several."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Something that config.json says otherwise than the tensors: `text` is a sentence without its
    stop.

    `lacking`: by the config there should be more than there is. `fix` is what config.json would
    have to say.
    """

    text: str
    lacking: bool = False
    fix: str = ""


def disagreements(model: Model) -> list[Disagreement]:
    """What config.json says otherwise than the tensors: depths, lists with an item per layer,
    experts, the vocabulary, ties whose second name is not stored; and layers that are missing
    between others.

    Keys that are absent, or in no place that the family knows, say nothing. A tie that is stored
    twice with different bytes is a warning of `bind`, which needs to read them.
    """
    return [*_looked(model), *_lists(model)]


def certain(model: Model) -> list[Disagreement]:
    """Of the disagreements those whose keys are known to count these very tensors.

    In a family that is inferred from names they may count others, or layers that share their
    weights. Of such a one only what is missing is told, and only of language models with a single
    stack; it is no more than likely.
    """
    family = model.family
    # rows beyond the vocabulary are padding, which many checkpoints have
    rows = [d for d in _vocabulary(model) if not d.lacking]
    found = [d for d in _looked(model) if d not in rows]
    if not family.inferred:
        return found if model.space.depths else []
    if len(model.space.depths) != 1 or _SHARED_LAYERS in model.config or not family.has_head(model.config):
        return []
    return [dataclasses.replace(d, lacking=False) for d in found if d.lacking]


def config_faults(model: Model) -> list[str]:
    """A sentence for each thing that config.json says otherwise than the tensors, ties included
    whose two sides are stored (W0504).

    The config of a template goes out as it came in where the recipe changes nothing that it counts,
    faults included. The record of the output lists these, so that nobody takes them for damage.
    """
    tied = [rule for rule in model.family.ties if is_tied(model.config, rule) and rule.primary in model.tensors]
    broken = [(alias, rule.primary) for rule in tied for alias in rule.aliases if alias in model.tensors]
    said = [found.text for found in disagreements(model)]
    twice = [alias for alias, _ in broken]
    return [
        *said,
        *_unexpected(model, [*said, *(f"`{alias}`" for alias in twice)]),
        *(f"`{alias}` and `{primary}` are tied, but hold different bytes" for alias, primary in broken),
    ]


def _unexpected(model: Model, said: Sequence[str]) -> Iterator[str]:
    """Tensors that are otherwise than the config makes a loader expect, by their patterns; but for
    what follows from keys of which it is `said` that they are wrong."""
    expected = model.family.expected
    if expected is None or model.bundles:
        return
    shapes = ((name, view.shape) for name, view in model.tensors.items())
    for found in differences(expected, model.config, shapes):
        if isinstance(found.found, int) or model.family.is_ignored(found.name):
            continue  # counts are among the disagreements
        if any(f"`{key}`" in text for key in (found.of, *found.keys) for text in said):
            continue
        if found.said is None:
            yield f"`{found.of}` is stored, and config.json does not expect it"
        elif found.found is None:
            yield f"`{found.of}` is not stored, and config.json expects it"
        else:
            yield f"`{found.of}` has another shape than config.json says"


def _looked(model: Model) -> list[Disagreement]:
    looks = [_depths, _holes, _experts]
    if not model.bundles:
        # codes have names and shapes of their own, and what is wrapped has other names
        looks += [_parts, _fused_experts, _vocabulary, _untied, _absent]
    return [found for look in looks for found in look(model)]


def _more(said: Any, count: int) -> bool:
    return type(said) is int and said > count


def _depths(model: Model) -> Iterator[Disagreement]:
    others = [layout.depth_key for layout in model.family.layouts if layout.depth_key]
    by_hand = model.family.version is None
    for stack in model.family.stacks:
        depth = model.space.depths.get(stack.name)
        if depth is None or stack.depth_key is None:
            continue
        extra = config_value(model.config, stack.extra_key) if stack.extra_key else None
        allowed = (depth, depth - extra) if type(extra) is int else (depth,)
        for key in dict.fromkeys([stack.depth_key, *others]):
            said = config_value(model.config, key)
            if said is not None and said not in allowed:
                text = f"`{key}` is {_shown(said)}, but the tensors have {depth} of `{stack.name}`"
                # what stands beside the main stacks may be fewer by a rule of its own
                lacking = _more(said, depth) and (by_hand or stack.name.endswith("layers"))
                yield Disagreement(text, lacking, f"`{key}` {depth}")


def _holes(model: Model) -> Iterator[Disagreement]:
    """Layers that have no tensor between others that have some."""
    numbers: dict[str, set[int]] = {}
    for name in model.space.names:
        at = model.space.layer_of(name)
        if at is not None:
            numbers.setdefault(at[0].name, set()).add(at[1])
    for stack, found in numbers.items():
        depth = model.space.depths.get(stack, 0)
        missing = next((n for n in range(depth) if n not in found), None)
        if missing is not None:
            yield Disagreement(f"there are layers up to {depth - 1}, but no tensor of `{stack}[{missing}]`", True)


def _parts(model: Model) -> Iterator[Disagreement]:
    """Layers without a tensor that most of the others have, in families whose layers are all alike:
    those of the table written by hand."""
    listed = not model.family.inferred and model.family.version is None
    if not listed or model.family.experts is not None or model.config.get(_OWN_CODE):
        return
    layers: dict[str, dict[str, set[int]]] = {}
    for name in model.space.names:
        at = model.space.layer_of(name)
        if at is not None and not model.family.is_optional(name):
            layers.setdefault(at[0].name, {}).setdefault(at[2], set()).add(at[1])
    for stack, tails in layers.items():
        present = set().union(*tails.values())
        for tail, found in tails.items():
            if len(present) / 2 < len(found) < len(present):
                text = f"`{stack}[{min(present - found)}]` has no `{tail}`, which {len(found)} other layers have"
                yield Disagreement(text, True)
                break


def _lists(model: Model) -> Iterator[Disagreement]:
    for stack in model.family.stacks:
        depth = model.space.depths.get(stack.name)
        if depth is None:
            continue
        counted = {depth, ordinary_depth(stack, model.config, depth)}
        for key in dict.fromkeys(fact.items for fact in stack.facts if fact.items is not None):
            said = config_value(model.config, key)
            if isinstance(said, list) and len(said) not in counted:
                text = f"`{key}` has {len(said)} items, but the tensors have {depth} of `{stack.name}`"
                yield Disagreement(text)


def expert_counts(family: Family, shapes: Mapping[str, Sequence[int]]) -> set[int]:
    """How many experts the layers have, of tensors with these shapes: numbered, or along the first
    axis of one tensor."""
    if family.experts is None:
        fused = (n for n, shape in shapes.items() if ".experts." in n and len(shape) == 3)
        return {shapes[name][0] for name in fused if stack_index(family, name)}
    return {len(numbers) for numbers in _numbered(family, shapes).values()}


def _numbered(family: Family, names: Iterable[str]) -> dict[tuple[str, int], set[str]]:
    """The numbers of the experts of each layer."""
    found: dict[tuple[str, int], set[str]] = {}
    expert = pattern(f"{family.experts}.*", "[0-9]+")
    for name in names:
        at = stack_index(family, name)
        match = expert.match(at[2]) if at is not None else None
        if at is not None and match is not None:
            found.setdefault((at[0].name, at[1]), set()).add(match["e"])
    return found


def _experts(model: Model) -> Iterator[Disagreement]:
    """Layers with other numbers of experts than the config says."""
    family = model.family
    said = config_value(model.config, family.experts_key) if family.experts_key else None
    if type(said) is not int or family.experts is None:
        return
    counts = {layer: len(numbers) for layer, numbers in _numbered(family, model.space.names).items()}
    wrong = next(((layer, count) for layer, count in counts.items() if count != said), None)
    if wrong is not None:
        (stack, layer), count = wrong
        text = f"`{family.experts_key}` is {said}, but `{stack}[{layer}]` has {count} experts"
        yield Disagreement(
            text, said > count, f"`{family.experts_key}` {count}" if set(counts.values()) == {count} else ""
        )


def _fused_experts(model: Model) -> Iterator[Disagreement]:
    """Tensors that hold all experts of a layer along their first axis."""
    said = config_value(model.config, model.family.experts_key) if model.family.experts_key else None
    if type(said) is not int or model.family.experts is not None:
        return
    for name, view in model.tensors.items():
        if ".experts." in name and len(view.shape) == 3 and view.shape[0] < said and model.space.layer_of(name):
            text = f"`{model.family.experts_key}` is {said}, but `{name}` has {view.shape[0]} experts"
            yield Disagreement(text, True, f"`{model.family.experts_key}` {view.shape[0]}")
            return


def _vocabulary(model: Model) -> Iterator[Disagreement]:
    key = model.family.vocab_key
    said = None if key is None else config_value(model.config, key)
    if said is None:
        return
    for name, axis in model.family.vocabulary.items():
        view = model.tensors.get(name)
        if view is not None and axis < len(view.shape) and view.shape[axis] != said:
            rows = view.shape[axis]
            text = f"`{key}` is {_shown(said)}, but `{name}` has {rows} rows"
            yield Disagreement(text, _more(said, rows), f"`{key}` {rows}")


def _untied(model: Model) -> Iterator[Disagreement]:
    if not model.family.may_have_head(model.config):
        return
    for rule in model.family.ties:
        if rule.config_key is None or is_tied(model.config, rule):
            continue
        for alias in rule.aliases:
            below = f"{alias.rpartition('.')[0]}."
            if any(n.startswith(below) and not n.endswith(".bias") for n in model.checkpoint.tensors):
                continue  # it is there in a form of its own, such as `lm_head.linear.weight`
            if model.aliases.get(alias) == rule.primary:
                says = "says" if config_value(model.config, rule.config_key) is not None else "is not set, which says"
                text = f"`{rule.config_key}` {says} that `{alias}` is a tensor of its own, but it is not stored"
                # what is not said to be a model with a head may well be one without
                yield Disagreement(text, model.family.has_head(model.config), f"`{rule.config_key}` true")


def _absent(model: Model) -> Iterator[Disagreement]:
    """The embedding and the last norm, which each model with a head has."""
    if not model.family.has_head(model.config) or model.family.inferred:
        return
    for role in ("embed", "norm"):
        for path in model.family.places.get(role, ()):
            name = f"{path}.weight"
            # a place may be a tensor by itself
            if model.find(name) is None and model.find(path) is None:
                yield Disagreement(f"there is no `{name}`, which the model's architecture has", True)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"
