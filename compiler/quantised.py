"""Weights of eight bits that mean something only with the scales stored beside them, taken as plain numbers.

Checkpoints such as DeepSeek-V3's hold a weight as float8 and, in a tensor beside it, what each block of it is to be
multiplied by. A copy of both is right; arithmetic on one apart from the other, or another dtype, is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..grammar.diagnostic import Diagnostic, Label, Severity
from ..grammar.source import Span
from .alike import sources_below
from .coverage import listed
from .graph import Graph, StoredRange
from .models import Model
from .places import Space

EIGHT_BITS = frozenset({"F8_E4M3", "F8_E5M2"})

_SCALES = ("_scale_inv", "_scale")
"""What the names of scales have behind the name of their weight."""


def quantised(graph: Graph, models: Sequence[Model], space: Space) -> list[Diagnostic]:
    """W0573, one for each statement that computes with weights apart from their scales."""
    scaled = {m.number: _scaled(m.checkpoint.tensors) for m in models}
    if not any(scaled.values()):
        return []
    found: dict[Span, list[str]] = {}
    places: dict[int, list[tuple[int, StoredRange]]] = {}
    for output in graph.outputs:
        if output.span is None:
            continue
        alike = output.likeness
        if alike is None:
            sources = [s for s in sources_below([output.node]) if s.dtype in EIGHT_BITS]
            read = [(s.model, s.stored) for s in sources]
        else:
            # those that are computed alike read the same dtypes, each from tensors of its own
            at = places.get(id(alike))
            if at is None:
                at = places[id(alike)] = [(k, s) for k, s in enumerate(alike.sources) if s.dtype in EIGHT_BITS]
            sources = [s for _, s in at]
            read = [(s.model, output.reads[k].stored) for k, s in at]
        copied = output.node.op == "source" and all(s.dtype == output.dtype for s in sources)
        if not copied and any(stored in scaled[model] for model, stored in read):
            found.setdefault(output.span, []).append(output.name)
    return [_warning(span, names, space) for span, names in found.items()]


def _scaled(names: Iterable[str]) -> set[str]:
    """The weights of which there are scales among tensors of these names."""
    every = list(names)
    return {name.removesuffix(ending) for ending in _SCALES for name in every if name.endswith(ending)}


def _warning(span: Span, names: Sequence[str], space: Space) -> Diagnostic:
    tensors = "a weight" if len(names) == 1 else f"{len(names):,} weights"
    return Diagnostic(
        "W0573",
        f"{tensors} of float8 taken apart from the scales stored beside them",
        (Label(span, "computes " + listed(names, space)),),
        notes=("such a weight means something only multiplied by its scales, so the result is hardly what is meant",),
        help=("convert the checkpoints to bfloat16 first",),
        severity=Severity.WARNING,
    )
