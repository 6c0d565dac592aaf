"""What a checkpoint's config.json says otherwise than its tensors, ties included whose two sides are stored.

The config of a template goes out as it came in where the recipe changes nothing that it counts, faults included. The
record of the output lists these, so that nobody takes them for damage.
"""

from __future__ import annotations

from .agreement import disagreements
from .model import Model
from .ties import config_value


def config_faults(model: Model) -> list[str]:
    """A sentence for each."""
    return [
        *(found.text for found in disagreements(model)),
        *(f"`{alias}` and `{primary}` are tied, but hold different bytes" for alias, primary in _broken_ties(model)),
    ]


def _broken_ties(model: Model) -> list[tuple[str, str]]:
    """Names that by the config share another one's tensor, and are stored with bytes of their own (W0504); a loader
    keeps both."""
    found: list[tuple[str, str]] = []
    for rule in model.family.ties:
        said = config_value(model.config, rule.config_key) if rule.config_key else True
        if rule.default if said is None else bool(said):
            found += [(alias, rule.primary) for alias in rule.aliases if {alias, rule.primary} <= model.tensors.keys()]
    return found
