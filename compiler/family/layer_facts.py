"""What a config settles for each layer of a stack by itself: what it attends to, whether it has
experts, how wide it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .config_keys import config_value
from .config_rules import Lookup, Undecided, rule
from .family import Family, LayerFact, LayerStack


def lookup(family: Family, config: Mapping[str, Any]) -> Lookup:
    """What a config says under each key: its own value, else what silence means, None where nothing
    is known of that."""

    def value(key: str) -> Any:
        said = config_value(config, key)
        return family.defaults.get(key) if said is None else said

    return value


class StackFacts:
    """The facts of the layers of a stack by a config, in which the stack has `depth` layers.

    A list of the config counts where it is long enough, else the rule; a rule may read a list that
    another fact of the stack makes where the config lacks it.
    """

    def __init__(self, family: Family, stack: LayerStack, config: Mapping[str, Any], depth: int) -> None:
        self.depth = depth
        self._said = lookup(family, config)
        self._config = config
        self._derived = {fact.items: fact for fact in stack.facts if fact.items is not None}
        self._pending: set[str] = set()

    def value(self, fact: LayerFact, layer: int) -> Any:
        """The fact of a layer. Raises Undecided where the config does not tell."""
        items = self.items(fact)
        if items is not None and layer < len(items):
            return items[layer]
        if fact.rule is None:
            raise Undecided(f"no `{fact.items}`")
        return rule(fact.rule).value(self._key, i=layer, n=self.depth)

    def items(self, fact: LayerFact) -> Sequence[Any] | None:
        """The config's list of the fact; None where it has none."""
        said = None if fact.items is None else config_value(self._config, fact.items)
        return said if isinstance(said, list) else None

    def _key(self, key: str) -> Any:
        fact = self._derived.get(key)
        said = config_value(self._config, key)
        if fact is None or fact.rule is None or isinstance(said, list) or key in self._pending:
            return self._said(key)
        self._pending.add(key)
        try:
            return [self.value(fact, layer) for layer in range(self.depth)]
        finally:
            self._pending.discard(key)


def ordinary_depth(stack: LayerStack, config: Mapping[str, Any], stored: int) -> int:
    """How many of a stack's `stored` layers the config counts as its depth: the rest, at the end,
    it counts apart."""
    extra = config_value(config, stack.extra_key) if stack.extra_key else None
    if type(extra) is int and 0 < extra < stored and stack.depth_key is not None:
        said = config_value(config, stack.depth_key)
        if said == stored - extra:
            return stored - extra
    return stored
