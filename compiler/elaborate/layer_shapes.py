"""The shape that a tensor of the output is to have."""

from __future__ import annotations

from collections.abc import Mapping

from ..checkpoint.model import Model
from ..family.family import LayerStack
from ..family.space import Space
from .layer_origins import Sources

Shape = tuple[int, ...]


class LayerShapes:
    """The template's shapes, each layer's those of the layer that it comes from.

    Where the layers of a stack differ from each other, one that comes to lie elsewhere keeps its
    shape, as long as the template has that of a layer too: its config knows of such layers.
    """

    def __init__(self, template: Model, space: Space, sources: Mapping[str, Sources]) -> None:
        self._template, self._space, self._sources = template, space, sources
        self._known: dict[tuple[str, str], frozenset[Shape]] = {}
        self._moved = any(source != (template, j) for found in sources.values() for j, source in enumerate(found))

    def expected(self, name: str) -> Shape | None:
        """The shape; None for a tensor that no layer of the template has the like of."""
        like = self._template.find(name)
        own = like[1].shape if like is not None else None
        at = self._space.layer_of(name) if self._moved else None
        if at is None:
            return own
        stack, layer, rest = at
        sources = self._sources.get(stack.name, [])
        source = sources[layer] if layer < len(sources) else None
        if own is not None and source in (None, (self._template, layer)):
            return own
        known = self._of_slot(stack, rest)
        found = source[0].find(f"{stack.head}{source[1]}.{rest}") if source is not None else None
        if found is not None and found[1].shape in known:
            return found[1].shape
        return own if own is not None or len(known) != 1 else next(iter(known))

    def allows(self, name: str, shape: Shape) -> bool:
        """Whether a tensor may have a shape because another layer of the template has it, in a
        stack some of whose layers are from elsewhere."""
        at = self._space.layer_of(name) if self._moved else None
        return at is not None and shape in self._of_slot(at[0], at[2])

    def _of_slot(self, stack: LayerStack, rest: str) -> frozenset[Shape]:
        """The shapes that the template's layers have of a tensor."""
        key = (stack.name, rest)
        if key not in self._known:
            depth = self._template.space.depths.get(stack.name, 0)
            views = [self._template.find(f"{stack.head}{j}.{rest}") for j in range(depth)]
            self._known[key] = frozenset(view[1].shape for view in views if view is not None)
        return self._known[key]
