"""The stacks of an architecture: their names, where they lie in a file, and the keys that count
them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from ..sweep.stacks import Stack, main_stacks, stacks_of
from .subject import Subject, changed, dotted, levels, made

_LENGTH = re.compile("layer|depth|block|stage|num_hidden|num_groups")
_EXTRA = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers", "mtp_num_layers")


@dataclass(frozen=True)
class Found:
    """A stack: its name, its path in memory, its prefix in a file (to the number), its length here,
    and the names below its layers."""

    name: str
    path: str
    prefix: str
    depth: int
    tails: tuple[str, ...]
    main: bool


def found_stacks(subject: Subject) -> list[Found]:
    """Main stacks first, then in the order of the model."""
    every = stacks_of(subject.model)
    prefixes = {stack.path: prefix for stack in every if (prefix := _prefix(subject, stack)) is not None}
    stored = [stack for stack in every if stack.path in prefixes]
    mains = main_stacks(stored, [stack for stack in every if stack not in stored], subject.config, exotic=False)
    names = {main.path: main.names[0] for main in mains}
    twice = Counter(prefixes[s.path] for s in stored)
    stored.sort(key=lambda stack: stack.path not in names)
    out = []
    for stack in stored:
        prefix = prefixes[stack.path]
        if twice[prefix] > 1:
            continue
        name = "layers" if len(stored) == 1 else names.get(stack.path, prefix)
        tails = dict.fromkeys(
            n.removeprefix(prefix + ".").partition(".")[2] for n in subject.sources if n.startswith(prefix + ".")
        )
        out.append(Found(name, stack.path, prefix, stack.depth, tuple(tails), stack.path in names))
    return out


def _prefix(subject: Subject, stack: Stack) -> str | None:
    """The prefix of most of its tensors in a file; None where the blocks are not numbered there."""
    count: Counter[str] = Counter()
    below = {name: sources for name, sources in subject.sources.items() if sources}
    for index in range(stack.depth):
        lead = f"{stack.path}.{index}."
        for name, sources in below.items():
            if all(any(source.startswith(lead) for source in names) for names in sources):
                count.update(m.group(1) for m in re.finditer(rf"^(.+?)\.{index}\.(?=.)", name))
    return count.most_common(1)[0][0] if count else None


def lengths(architecture: str, config: PreTrainedConfig) -> dict[str, int]:
    """The length of each list of blocks, those of one included."""
    model = made(architecture, config)
    return {
        path: len(module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList | nn.Sequential)
    }


def integers(config: PreTrainedConfig) -> Iterator[tuple[str, int]]:
    """The keys of whole numbers as config.json has them, dotted."""
    for path, level in levels(config):
        for key, value in level.to_dict().items():
            if type(value) is int and not key.startswith("_"):
                yield dotted(path, key), value


def depth_keys(subject: Subject, stacks: Sequence[Found]) -> dict[str, str]:
    """By the path of a stack the key that counts it: one more there is one more block."""
    depths = {stack.path: stack.depth for stack in stacks}
    found: dict[str, str] = {}
    keys = [(k, v) for k, v in integers(subject.config) if _LENGTH.search(k.rpartition(".")[2]) and 0 < v < 20]
    keys += [(k, v) for k, v in integers(subject.config) if (k, v) not in keys and v in depths.values() and v < 20]
    keys.sort(key=lambda each: each[1] not in depths.values())
    for key, value in keys:
        if len(found) == len(depths):
            break
        for more in (1, -1, 2):
            if value + more < 1:
                continue
            after = _lengths_with(subject, key, value, value + more)
            if after is None:
                continue
            grown = {p for p, d in depths.items() if p not in found and after.get(p, 0) == d + more}
            found |= dict.fromkeys(grown, key)
            break
    said = dict(integers(subject.config))
    # what grows with a key and is not as long as it says is not what it counts
    found = {path: key for path, key in found.items() if said[key] == depths[path]}
    return found | _by_name(stacks, found, said)


def _by_name(stacks: Sequence[Found], found: Mapping[str, str], said: Mapping[str, int]) -> dict[str, str]:
    """The key of a language model's stack that no key could be changed for, as where a list goes
    with it."""
    for stack in stacks:
        if stack.name in ("layers", "text.layers") and stack.path not in found:
            keys = [
                key for key in ("num_hidden_layers", "text_config.num_hidden_layers") if said.get(key) == stack.depth
            ]
            return dict.fromkeys([stack.path], keys[0]) if len(keys) == 1 else {}
    return {}


def _lengths_with(subject: Subject, key: str, before: int, after: int) -> dict[str, int] | None:
    for values in ({key: after}, {key: after, **_longer(subject.config, key, before, after)}):
        try:
            return lengths(subject.architecture, changed(subject.config, values))
        except Exception:
            continue
    return None


def _longer(config: PreTrainedConfig, key: str, before: int, after: int) -> dict[str, Any]:
    """Lists beside a key with as many items as it says, with as many as it is to say."""
    path = key.rpartition(".")[0]
    level = dict(levels(config))[path]
    return {
        dotted(path, name): (value * after)[:after]
        for name, value in level.to_dict().items()
        if isinstance(value, list) and len(value) == before and value
    }


def extra_key(subject: Subject) -> str | None:
    keys = dict(integers(subject.config))
    for word in _EXTRA:
        for key in keys:
            if key.rpartition(".")[2] == word:
                return key
    ignored = getattr(subject.model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return _EXTRA[0] if any(re.search(r"layers\\?\.\d", str(each)) for each in ignored) else None


def per_layer_lists(config: PreTrainedConfig, deeper: PreTrainedConfig | None, key: str, depth: int) -> list[str]:
    """The lists with one item a layer of the stack that `key` counts: as long as it is deep, and
    longer in the config of a deeper model, where there is one."""
    path = key.rpartition(".")[0]
    level = dict(levels(config)).get(path)
    other = dict(levels(deeper)).get(path) if deeper is not None else None
    if level is None:
        return []
    after: Mapping[str, Any] | None = other.to_dict() if other is not None else None
    return [
        dotted(path, name)
        for name, value in level.to_dict().items()
        if isinstance(value, list) and len(value) == depth and not name.startswith("_") and not _are_numbers(value)
        if after is None or (isinstance(after.get(name), list) and len(after[name]) == depth + 1)
    ]


def _are_numbers(items: list[Any]) -> bool:
    """Whether a list is one of the numbers of layers, and not one with an item for each."""
    whole = all(type(item) is int for item in items)
    return whole and len(items) > 1 and items == sorted(set(items)) and items[-1] < len(items)
