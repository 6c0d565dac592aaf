"""Which tensors of a checkpoint share storage: bytes over flags.

Candidates come from the family's ties, where the config (or the family's default) says tied, where
one side is not in the file, and from names that the header's metadata maps to each other. One side
missing: one tensor, if the model has such a part at all. Both stored with equal bytes: one tensor.
Both stored with different bytes: two, and a warning. Two names for the very same bytes, which a
pickle can have and a safetensors header can't, are one tensor whatever the flags say.

Where nothing says that they are tied, a head and other tensors of the vocabulary's shape are
compared with the embedding all the same. What holds equal bytes is a *duplicate* of the other: the
two have one value, stored under both names, as whoever loads such a file expects. So are two names
for one range of a pickle that has no config.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ...grammar.records import dataclass
from ..family.config_keys import config_value
from ..family.family import Family, TieRule, stack_index
from .catalog import Catalog, Checkpoint
from .dtypes import FLOATS
from .layouts import View


@dataclass(frozen=True, slots=True)
class Ties:
    """`aliases`: canonical name to the primary whose storage it shares. `duplicates`: name to
    another one that holds equal bytes, both stored, though nothing says that they are tied.
    `differ`: pairs (primary, alias) that should be tied but hold different bytes. `undetermined`:
    pairs that should be tied, whose bytes could not be compared."""

    aliases: Mapping[str, str]
    duplicates: Mapping[str, str]
    differ: tuple[tuple[str, str], ...]
    undetermined: tuple[tuple[str, str], ...]


def is_tied(config: Mapping[str, Any] | None, rule: TieRule) -> bool:
    """Whether a config says that the tensors of a rule are one."""
    said = config_value(config, rule.config_key) if rule.config_key else True
    return rule.default if said is None else bool(said)


def read_ties(catalog: Catalog, checkpoint: Checkpoint, family: Family, views: dict[str, View]) -> Ties:
    """Finds the ties of a checkpoint.

    Where only an alias of tied tensors is stored, `views` gains its primary under the alias's
    bytes.
    """
    aliases: dict[str, str] = {}
    duplicates: dict[str, str] = {}
    differ: list[tuple[str, str]] = []
    undetermined: list[tuple[str, str]] = []
    for rule in family.ties:
        tied = is_tied(checkpoint.config, rule)
        stored = [name for name in (rule.primary, *rule.aliases) if name in views]
        if not stored:
            continue
        if rule.primary not in views:
            if not tied:
                continue  # what is stored is a tensor of its own, and the other one is missing
            views[rule.primary] = views[stored[0]]
        for alias in rule.aliases:
            if alias not in views:
                if _has_part(family, rule, alias, checkpoint, views):
                    aliases[alias] = rule.primary
            elif _stored_once(checkpoint, views[rule.primary], views[alias]):
                (aliases if tied else duplicates)[alias] = rule.primary
            elif tied:
                first, second = views[rule.primary], views[alias]
                same: bool | None = False
                if first.shape == second.shape:
                    same = catalog.same_bytes(checkpoint, first.stored, second.stored)
                if same:
                    aliases[alias] = rule.primary
                elif same is None:
                    undetermined.append((rule.primary, alias))
                else:
                    differ.append((rule.primary, alias))
    for alias, primary in checkpoint.metadata.items():
        if primary in views and alias not in views and alias not in aliases and "." in alias:
            aliases[alias] = primary
    if checkpoint.shared:
        further = _further(checkpoint, views, {**aliases, **duplicates})
        (duplicates if checkpoint.config is None else aliases).update(further)
    known = {*aliases, *duplicates, *(name for pair in differ for name in pair)}
    duplicates |= _duplicates(catalog, checkpoint, family, views, known)
    return Ties(aliases, duplicates, tuple(differ), tuple(undetermined))


def _has_part(family: Family, rule: TieRule, alias: str, checkpoint: Checkpoint, views: Mapping[str, View]) -> bool:
    """Whether the model has the module of an alias that is not stored: a bare model has no head,
    and an encoder no decoder."""
    config = checkpoint.config or {}
    if family.is_of(config):
        return True
    if rule.config_key is not None:
        return family.may_have_head(config)
    part = alias.rpartition(".")[0].rpartition(".")[0]
    return not part or any(name.startswith(part + ".") for name in views)


def _duplicates(
    catalog: Catalog, checkpoint: Checkpoint, family: Family, views: Mapping[str, View], known: Collection[str]
) -> dict[str, str]:
    """Matrices of the vocabulary's shape outside the layers with the bytes of an earlier one, the
    embedding first."""
    embeds = [name for name, axis in family.vocabulary.items() if axis == 0 and name in views]
    shapes = {views[name].shape for name in embeds}
    rows = config_value(checkpoint.config, "vocab_size")
    first: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    found: dict[str, str] = {}
    for name in dict.fromkeys((*embeds, *views)):
        view = views[name]
        if len(view.shape) != 2 or name in known or not (view.shape in shapes or view.shape[0] == rows):
            continue
        stored = checkpoint.tensors[view.stored]
        whole = view.first == 0 and stored.shape == view.shape
        if not whole or 0 in view.shape or stored.dtype not in FLOATS or stack_index(family, name) is not None:
            continue
        others = first.setdefault((stored.dtype, view.shape), [])
        for other in others:
            if catalog.same_bytes(checkpoint, views[other].stored, view.stored):
                found[name] = other
                break
        else:
            others.append(name)
    return found


_Range = tuple[int, int, int, str, tuple[int, ...]]


def _range(checkpoint: Checkpoint, view: View) -> _Range:
    stored = checkpoint.tensors[view.stored]
    return stored.file, stored.start, view.first, stored.dtype, view.shape


def _stored_once(checkpoint: Checkpoint, one: View, other: View) -> bool:
    return one == other or (checkpoint.shared and _range(checkpoint, one) == _range(checkpoint, other))


def _further(checkpoint: Checkpoint, views: Mapping[str, View], aliases: Mapping[str, str]) -> dict[str, str]:
    """Names for bytes that have a name already, beside those of the family's ties; the first in the
    file is primary."""
    first: dict[_Range, str] = {}
    found: dict[str, str] = {}
    for name, view in views.items():
        if name not in aliases and 0 not in view.shape:
            primary = first.setdefault(_range(checkpoint, view), name)
            if primary != name:
                found[name] = primary
    return found
