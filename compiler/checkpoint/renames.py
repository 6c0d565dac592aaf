"""Which `rename` makes the names of one checkpoint those of another, where wrappers, or other
spellings of the same parts, are all that they differ in."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from ..family.family import Family, family_for
from .catalog import CatalogError, Checkpoint
from .layouts import recognise, rename_stored

_SPELLINGS = (
    {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"},
    {"gamma": "weight", "beta": "bias"},
)
"""Ends of names that mean the same: weight normalisation before and after PyTorch 2, and the norms
of TensorFlow."""

_MOST_RULES = 6
_MOST_KINDS = 1_000  # of names, numbers left aside; real models have some hundreds


def rename_to(checkpoint: Checkpoint, wanted: Collection[str]) -> tuple[dict[str, str], Family] | None:
    """A `rename` under which a checkpoint has all tensors of these canonical names (but for those
    that are tied or optional), and the family that it has then; None where none was found.

    What is returned was tried.
    """
    # as the file has them: a `rename` that is given already is replaced
    stored = dataclasses.replace(checkpoint, tensors={t.name: t for t in checkpoint.tensors.values()})
    for rename in _proposals(tuple(stored.tensors), wanted):
        try:
            renamed = rename_stored(stored, rename)
        except CatalogError:
            continue
        family = family_for(renamed.config, renamed.tensors)
        have = recognise(renamed, family)
        tied = {alias for rule in family.ties for alias in (rule.primary, *rule.aliases)}
        missing = [n for n in wanted if n not in have.views and n not in have.buffers]
        if all(name in tied or family.is_optional(name) for name in missing):
            return rename, family
    return None


def _proposals(names: Collection[str], wanted: Collection[str]) -> Iterator[dict[str, str]]:
    prefixes = _prefixes(names, wanted)
    if prefixes:
        yield prefixes
    for spelling in (*_SPELLINGS, *({new: old for old, new in s.items()} for s in _SPELLINGS)):
        ends = {f".{old}": f".{new}" for old, new in spelling.items() if any(n.endswith(f".{old}") for n in names)}
        if not ends:
            continue
        yield {f"*{old}": f"*{new}" for old, new in ends.items()}
        # a spelling below a wrapper
        respelled = {name: name for name in names}
        for old, new in ends.items():
            respelled |= {n: n.removesuffix(old) + new for n in names if n.endswith(old)}
        for before, after in _prefixes(list(respelled.values()), wanted).items():
            both = {before + old: after + new for old, new in ends.items()}
            yield {**{k: v for k, v in both.items() if _holds(k, names)}, before: after}


def _holds(key: str, names: Collection[str]) -> bool:
    first, _, last = key.partition("*")
    return any(n.startswith(first) and n.endswith(last) for n in names)


def _prefixes(names: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """Rules from the modules in front of what the names have in common, the longest first."""
    by_end: dict[str, list[list[str]]] = {}
    own, targets = _kinds(names), _kinds(wanted)
    if max(len(own), len(targets)) > _MOST_KINDS:
        return {}
    for parts in own:
        by_end.setdefault(parts[-1], []).append(parts)
    found: Counter[tuple[str, str]] = Counter()
    for target in targets:
        shared, best = 1, None
        for parts in by_end.get(target[-1], ()):
            length = sum(1 for _ in itertools.takewhile(_equal, zip(reversed(parts), reversed(target), strict=False)))
            # what the names have in common is a module at least, and not its parameter alone
            if length > shared:
                shared, best = length, parts
        if best is not None and best != target:
            # a wrapper that is missing is put around each module by itself
            inner = shared - (shared == len(best))
            found[_numbered(best[: len(best) - inner], target[: len(target) - inner])] += 1
    rules = [pair for pair, _ in found.most_common(_MOST_RULES)]
    rules.sort(key=lambda pair: -pair[0].count("."))
    return {f"{old}.*": f"{new}.*" if new else "*" for old, new in rules}


def _kinds(names: Collection[str]) -> list[list[str]]:
    """The names by their modules, a mark in place of each number, those that are alike once."""
    kinds = {tuple("#" if part.isdigit() else part for part in name.split(".")) for name in names}
    return [list(kind) for kind in sorted(kinds)]


def _equal(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def _numbered(*prefixes: Sequence[str]) -> tuple[str, str]:
    """Two prefixes with variables for their numbers."""
    old, new = (
        ".".join(f"{{i{next(count) or ''}}}" if part == "#" else part for part in parts)
        for parts, count in ((parts, itertools.count()) for parts in prefixes)
    )
    return old, new
