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

from ...grammar.diagnostic import Diagnostic, finding
from ...grammar.records import dataclass
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


def config_text(
    elaboration: Elaboration, settings: Settings, origin: Model, given: Mapping[str, Any]
) -> tuple[str, list[Diagnostic]]:
    """The text of config.json, and warnings (W0580).

    Depth, per-layer lists, vocabulary, ties and dtype follow the tensors; `given` is what it starts
    from, that of the model `origin`; `output(config=…)` is merged in last.
    """
    config = copy.deepcopy(dict(given))
    unknown = [*_layers(config, elaboration, origin), *_vocabulary(config, elaboration, origin)]
    _ties(config, elaboration, origin)
    own = tuple(part.prefix for part in origin.checkpoint.parts if part.folder)
    outputs = [o for o in elaboration.graph.outputs if not (own and o.name.startswith(own))]
    views = [view for name, view in origin.tensors.items() if not (own and name.startswith(own))]
    set_dtype(config, outputs, origin, views)
    _merge(config, settings.config)
    # whoever gives keys by hand knows what they count
    return json_text(config), [] if settings.config else [_warning(each, origin) for each in unknown]


@dataclass(frozen=True, slots=True)
class _Uncounted:
    """A number that the recipe changes, of which no key is known: `what`, such as a stack, has
    `after` of `items`."""

    what: str
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
    if not isinstance(target, dict) or any(homes(config, key)):
        return False
    target[inner] = value
    return True


def _layers(config: dict[str, Any], elaboration: Elaboration, origin: Model) -> Iterator[_Uncounted]:
    stacks = [s for s in origin.family.stacks if s.name in elaboration.space.depths]
    layouts = [layout.depth_key for layout in origin.family.layouts if layout.depth_key]
    changes = {s.name: (origin.space.depths.get(s.name, 0), elaboration.space.depths[s.name]) for s in stacks}
    for stack in stacks:
        before, after = changes[stack.name]
        if before == after:
            continue
        same_key = [changes[s.name] for s in stacks if s.depth_key is not None and s.depth_key == stack.depth_key]
        # layers that the config counts apart are among the stored ones, or are not
        extra = config_value(config, stack.extra_key) if stack.extra_key else None
        beyond = {0, extra} if type(extra) is int else {0}
        keys = [stack.depth_key, *layouts] if stack.depth_key else []
        if len(set(same_key)) > 1 or not any(_replace(config, keys, before - n, after - n) for n in beyond):
            if not origin.family.inferred and stack.depth_key and _add(config, stack.depth_key, after):
                continue
            yield _Uncounted(stack.name, "layers", before, after)
    if len(stacks) != 1:
        return
    ((stack, (before, _)),) = zip(stacks, changes.values(), strict=True)
    sources = elaboration.layer_sources.get(stack.name, [])
    if sources == [(origin, j) for j in range(before)]:
        return
    for key in origin.family.per_layer_keys:
        for home, inner in homes(config, key):
            if not isinstance(home[inner], list) or len(home[inner]) != before:
                continue
            entries = []
            for source in sources:
                own = config_value(source[0].config, key) if source else None
                if source is None or not isinstance(own, list) or source[1] >= len(own):
                    break
                entries.append(own[source[1]])
            if len(entries) == len(sources):
                home[inner] = entries


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
            yield _Uncounted(output.name, "rows", before, after)
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
            for home, key in list(homes(config, rule.config_key)) or [(config, rule.config_key)]:
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
