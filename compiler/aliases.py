"""Which tensors of a checkpoint share storage: bytes over flags.

Candidates come from the family's ties, where the config (or the family's default) says tied, where one side is not in
the file, and from names that the header's metadata maps to each other. One side missing: one tensor. Both stored with
equal bytes: one tensor. Both stored with different bytes: two, and a warning. Two names for the very same bytes, which
a pickle can have and a safetensors header can't, are one tensor whatever the flags say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..grammar.records import dataclass
from .catalog import Catalog, Checkpoint
from .family import Family
from .layouts import View


@dataclass(frozen=True, slots=True)
class Ties:
    """`aliases`: canonical name to the primary whose storage it shares. `differ`: pairs (primary, alias) that should be
    tied but hold different bytes. `undetermined`: pairs whose bytes could not be compared."""

    aliases: Mapping[str, str]
    differ: tuple[tuple[str, str], ...]
    undetermined: tuple[tuple[str, str], ...]


def config_value(config: Mapping[str, Any] | None, key: str) -> Any:
    """A config key at the top level or in `text_config`; None where it is nowhere."""
    if config is None:
        return None
    if key in config:
        return config[key]
    nested = config.get("text_config")
    return nested.get(key) if isinstance(nested, Mapping) else None


def read_ties(catalog: Catalog, checkpoint: Checkpoint, family: Family, views: dict[str, View]) -> Ties:
    """Finds the ties of a checkpoint.

    Where only an alias is stored, `views` gains its primary under the alias's bytes.
    """
    aliases: dict[str, str] = {}
    differ: list[tuple[str, str]] = []
    undetermined: list[tuple[str, str]] = []
    for rule in family.ties:
        value = config_value(checkpoint.config, rule.config_key) if rule.config_key else None
        tied = True if rule.config_key is None else rule.default if value is None else bool(value)
        stored = [name for name in (rule.primary, *rule.aliases) if name in views]
        if not stored:
            continue
        if rule.primary not in views:
            views[rule.primary] = views[stored[0]]
        for alias in rule.aliases:
            if alias not in views or _stored_once(checkpoint, views[rule.primary], views[alias]):
                aliases[alias] = rule.primary
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
        aliases |= _further(checkpoint, views, aliases)
    return Ties(aliases, tuple(differ), tuple(undetermined))


_Range = tuple[int, int, int, str, tuple[int, ...]]


def _range(checkpoint: Checkpoint, view: View) -> _Range:
    stored = checkpoint.tensors[view.stored]
    return stored.file, stored.start, view.first, stored.dtype, view.shape


def _stored_once(checkpoint: Checkpoint, one: View, other: View) -> bool:
    return one == other or (checkpoint.shared and _range(checkpoint, one) == _range(checkpoint, other))


def _further(checkpoint: Checkpoint, views: Mapping[str, View], aliases: Mapping[str, str]) -> dict[str, str]:
    """Names for bytes that have a name already, beside those of the family's ties; the first in the file is primary."""
    first: dict[_Range, str] = {}
    found: dict[str, str] = {}
    for name, view in views.items():
        if name not in aliases and 0 not in view.shape:
            primary = first.setdefault(_range(checkpoint, view), name)
            if primary != name:
                found[name] = primary
    return found
