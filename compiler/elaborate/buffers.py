"""What stored tensors that are no parameters become: copies of the template's, whatever the recipe
does.

Position ids, rotary frequencies and attention masks follow from the config; some exporters store
them and some don't, and whoever loads a file strictly looks for those that its class has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..checkpoint.layouts import View
from ..checkpoint.model import Model
from ..family.space import Space
from .layer_origins import Sources


def buffers_of(template: Model, space: Space, sources: Mapping[str, Sources]) -> Iterator[tuple[str, Model, View]]:
    """The output's buffers: name, the model to copy from, and what.

    A layer's are those of the layer that it came from, or else the template's.
    """
    layers: dict[str, dict[str, None]] = {}
    for name, view in template.recognised.buffers.items():
        at = space.layer_of(name)
        if at is None:
            yield name, template, view
        else:
            layers.setdefault(at[0].name, {})[at[2]] = None
    for stack in space.family.stacks:
        for below in layers.get(stack.name, ()):
            held = [n for n in range(template.space.depths.get(stack.name, 0)) if _held(template, stack.name, n, below)]
            for number, source in enumerate(sources.get(stack.name, [])):
                from_template = (template, min(number, held[-1])) if held else None
                for model, layer in filter(None, (source, from_template)):
                    found = _held(model, stack.name, layer, below)
                    if found is not None:
                        yield f"{stack.head}{number}.{below}", model, found
                        break


def _held(model: Model, stack: str, layer: int, below: str) -> View | None:
    heads = [s.head for s in model.family.stacks if s.name == stack]
    return model.recognised.buffers.get(f"{heads[0]}{layer}.{below}") if heads else None
