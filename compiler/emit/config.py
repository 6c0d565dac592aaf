"""config.json of the output: the template's, made true to the tensors.

A key changes only where the recipe changes what it counts: what the output has is compared with
what the template has, by the same reading of both. Where the two are equal the key stays, whatever
it says. Where they differ, it is set if it said before what the template's tensors say; else nobody
knows what it counts, and a warning says so.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...grammar.diagnostic import Diagnostic, MergecError, Severity, finding
from ...grammar.records import dataclass
from ..checkpoint.agreement import expert_counts
from ..checkpoint.documents import json_text
from ..checkpoint.dtypes import FLOATS, TORCH_NAMES
from ..checkpoint.layouts import View
from ..checkpoint.model import Model
from ..checkpoint.ties import is_tied
from ..elaborate.elaborate import Elaboration
from ..evaluate.settings import Settings
from ..family.config_keys import config_value, homes, place_of
from ..graph.graph import Output
from ..ops.shapes import elements
from .layer_config import StackOrder, follow_layers, stack_order


def config_text(
    elaboration: Elaboration, settings: Settings, origin: Model, given: Mapping[str, Any]
) -> tuple[str, list[Diagnostic]]:
    """The text of config.json, and warnings (W0580, W0591).

    Depth, what each layer is, experts, vocabulary, ties and dtype follow the tensors; `given` is
    what it starts from, that of the model `origin`; `output(config=…)` is merged in last. Raises
    MergecError: E0474 to E0477 where no config can say what the layers are.
    """
    config = copy.deepcopy(dict(given))
    orders, errors = _orders(elaboration, origin)
    unknown = list(_layers(config, orders, origin))
    for order in orders:
        errors += follow_layers(config, order, elaboration, origin, settings.config)
    warnings = [each for each in errors if each.severity is Severity.WARNING]
    if len(warnings) < len(errors):
        raise MergecError(errors)
    unknown += [*_experts(config, elaboration, origin), *_vocabulary(config, elaboration, origin)]
    _ties(config, elaboration, origin)
    own = tuple(part.prefix for part in origin.checkpoint.parts if part.folder)
    outputs = [o for o in elaboration.graph.outputs if not (own and o.name.startswith(own))]
    views = [view for name, view in origin.tensors.items() if not (own and name.startswith(own))]
    set_dtype(config, outputs, origin, views)
    _merge(config, settings.config)
    warnings += [_warning(each, origin) for each in unknown if not _is_given(each, settings.config)]
    return json_text(config), warnings


def _orders(elaboration: Elaboration, origin: Model) -> tuple[list[StackOrder], list[Diagnostic]]:
    found = [
        stack_order(stack, elaboration, origin)
        for stack in origin.family.stacks
        if stack.name in elaboration.space.depths
    ]
    return [o for o in found if isinstance(o, StackOrder)], [o for o in found if isinstance(o, Diagnostic)]


@dataclass(frozen=True, slots=True)
class _Uncounted:
    """A number that the recipe changes, of which no key is known: `what`, such as a stack, has
    `after` of `items`. `key` should count them, but says something else."""

    what: str
    key: str | None
    items: str
    before: int
    after: int


def _warning(found: _Uncounted, origin: Model) -> Diagnostic:
    number = f"`{found.what}` has {found.after} {found.items} instead of {found.before}"
    return finding(
        "W0580",
        f"{number}, and no key of config.json is known to count them",
        origin.span,
        "its config.json goes out with the number unchanged",
        help=f"set the key that does: `output(config={{KEY: {found.after}}})`",
    )


def _is_given(found: _Uncounted, given: Mapping[str, Any]) -> bool:
    """Whether `output(config=…)` says the number: under the key that should, or under one that
    whoever wrote it knows."""
    said = config_value(given, found.key) if found.key is not None else None
    return said is not None or found.after in _numbers(given)


def _numbers(given: Mapping[str, Any]) -> Iterator[int]:
    for value in given.values():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif type(value) is int:
            yield value


def _replace(config: dict[str, Any], keys: Iterable[str], before: object, after: object) -> bool:
    """Sets the keys to what they count now, wherever they said what it was before; False where none
    did."""
    found = [(home, key) for dotted in keys for home, key in homes(config, dotted)]
    found = [(home, key) for home, key in found if type(home[key]) is type(before) and home[key] == before]
    for home, key in found:
        home[key] = after
    return bool(found)


def _add(config: dict[str, Any], key: str, value: object) -> bool:
    """Sets a key of a listed family, which is known to count this, where the config leaves it to
    the default."""
    target, inner = place_of(config, key)
    if not isinstance(target, dict) or config_value(config, key) is not None:
        return False
    target[inner] = value
    return True


def _layers(config: dict[str, Any], orders: Sequence[StackOrder], origin: Model) -> Iterator[_Uncounted]:
    """Depths, and the numbers of layers that are counted apart."""
    layouts = [layout.depth_key for layout in origin.family.layouts if layout.depth_key]
    if not origin.family.inferred and any(order.before != order.ordinary for order in orders):
        for order in orders:
            # of two stacks one may be as deep as the other where the config does not say
            if order.stack.depth_key is not None:
                _add(config, order.stack.depth_key, order.ordinary)
    for order in orders:
        stack, stored = order.stack, origin.space.depths.get(order.stack.name, 0)
        if stack.extra_key is not None and order.extra != stored - order.before:
            _replace(config, [stack.extra_key], stored - order.before, order.extra)
        if stored == len(order.sources) and order.before == order.ordinary:
            continue
        same_key = {
            (o.before, o.ordinary)
            for o in orders
            if o.stack.depth_key is not None and o.stack.depth_key == stack.depth_key
        }
        keys = [stack.depth_key, *layouts] if stack.depth_key else []
        if len(same_key) > 1 or not (
            _replace(config, keys, order.before, order.ordinary) or _replace(config, keys, stored, len(order.sources))
        ):
            if not origin.family.inferred and config_value(config, stack.depth_key or "") == order.ordinary:
                continue
            listed = [config_value(origin.config, fact.items) for fact in stack.facts if fact.items is not None]
            silent = stack.depth_key is None or config_value(config, stack.depth_key) is None
            if silent and any(isinstance(each, list) and len(each) == order.before for each in listed):
                continue  # a list that goes along with the layers says how many there are
            yield _Uncounted(stack.name, stack.depth_key, "layers", stored, len(order.sources))


def _experts(config: dict[str, Any], elaboration: Elaboration, origin: Model) -> Iterator[_Uncounted]:
    """The number of experts, where all layers have as many and the template's layers had others."""
    key, family = origin.family.experts_key, origin.family
    if key is None:
        return
    before = expert_counts(family, {name: view.shape for name, view in origin.tensors.items()})
    after = expert_counts(family, {output.name: output.shape for output in elaboration.graph.outputs})
    if before == after or len(before) != 1 or not after:
        return
    if len(after) > 1:
        yield _Uncounted("a layer", key, "experts", min(before), max(after))
    elif not _replace(config, [key], min(before), min(after)) and (
        family.inferred or not _add(config, key, min(after))
    ):
        yield _Uncounted("each layer", key, "experts", min(before), min(after))


def _vocabulary(config: dict[str, Any], elaboration: Elaboration, origin: Model) -> Iterator[_Uncounted]:
    family = elaboration.template.family
    for output in elaboration.graph.outputs:
        axis, known = family.vocabulary.get(output.name), origin.find(output.name)
        if axis is None or known is None:
            continue
        before, after = known[1].shape[axis], output.shape[axis]
        key = family.vocab_key
        listed = key if key is not None and not family.inferred else None
        counted = before == after or (key is not None and _replace(config, [key], before, after))
        if not counted and not (listed is not None and _add(config, listed, after)):
            yield _Uncounted(output.name, key, "rows", before, after)
        return


def _ties(config: dict[str, Any], elaboration: Elaboration, origin: Model) -> None:
    stored = {o.name for o in elaboration.graph.outputs}
    for rule in elaboration.template.family.ties:
        if rule.config_key is None or rule.primary not in stored:
            continue
        before = _untied(rule.aliases, origin.tensors, origin.aliases)
        after = _untied(rule.aliases, stored, elaboration.ties)
        if after is None or after == before:
            continue
        if is_tied(config, rule) is after:
            for home, key in list(homes(config, rule.config_key)) or [place_of(config, rule.config_key)]:
                if isinstance(home, dict):
                    home[key] = not after


def _untied(aliases: Sequence[str], stored: Iterable[str], tied: Iterable[str]) -> bool | None:
    """Whether one of the names has a tensor of its own; None where none is there at all."""
    if any(alias in stored for alias in aliases):
        return True
    return False if any(alias in tied for alias in aliases) else None


def set_dtype(config: dict[str, Any], outputs: Sequence[Output], origin: Model, views: Iterable[View]) -> None:
    """Sets the dtype that most floats of the outputs have, under the keys that the config uses,
    where it is another than that of the template's `views`."""
    before = _most((origin.dtype(view), elements(view.shape)) for view in views)
    after = _most((output.dtype, elements(output.shape)) for output in outputs)
    if after is None or before == after:
        return
    name = TORCH_NAMES.get(after)
    keys = [k for k in ("dtype", "torch_dtype") if k in config] or ["torch_dtype"]
    former = {config.get(key) for key in keys if isinstance(config.get(key), str)} | {TORCH_NAMES.get(before or "")}
    for key in keys:
        config[key] = name
    for nested in _configs(config):
        for key in ("dtype", "torch_dtype"):
            if isinstance(nested.get(key), str) and nested[key] in former:
                nested[key] = name


def _most(dtypes: Iterable[tuple[str, int]]) -> str | None:
    """The dtype of most numbers; masks and indices are none."""
    count: Counter[str] = Counter()
    for dtype, size in dtypes:
        if dtype in FLOATS:
            count[dtype] += size
    return count.most_common(1)[0][0] if count else None


def _configs(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The configs of the parts of a model."""
    for key, value in config.items():
        if isinstance(value, dict) and key.endswith("config"):
            yield value
            yield from _configs(value)


def _merge(config: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _merge(config[key], value)
        else:
            config[key] = value
