"""Weights of eight bits that mean something only with the scales stored beside them, taken as plain numbers.

Checkpoints such as DeepSeek-V3's hold a weight as float8 and, in a tensor beside it, what each block of it is to be
multiplied by. A copy of both is right; arithmetic on one apart from the other, or another dtype, is not.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..grammar.diagnostic import Diagnostic, Label, Severity
from ..grammar.source import Span
from .alike import sources_below
from .coverage import listed
from .graph import Graph, Output, StoredRange
from .models import Model
from .places import Space

EIGHT_BITS = frozenset({"F8_E4M3", "F8_E5M2"})

_SCALES = ("_scale_inv", "_scale")
"""What the names of scales have behind the name of their weight."""


def quantised(graph: Graph, models: Sequence[Model], space: Space) -> list[Diagnostic]:
    """W0573, one for each statement that computes with weights apart from their scales."""
    scaled = {m.number: {weight for name in m.checkpoint.tensors for weight in _weights(name)} for m in models}
    if not any(scaled.values()):
        return []
    found: dict[Span, list[str]] = {}
    for output in graph.outputs:
        sources = _eight_bits(output)
        copied = output.node.op == "source" and all(s.dtype == output.dtype for s in sources)
        if output.span is not None and not copied and any(s.stored in scaled[s.model] for s in sources):
            found.setdefault(output.span, []).append(output.name)
    return [_warning(span, names, space) for span, names in found.items()]


def _weights(name: str) -> list[str]:
    """The weight of which a tensor of that name would be the scales."""
    return [name.removesuffix(ending) for ending in _SCALES if name.endswith(ending)]


def _eight_bits(output: Output) -> list[StoredRange]:
    """What an output reads of eight bits a number."""
    alike = output.likeness
    if alike is None:
        return [s for s in sources_below([output.node]) if s.dtype in EIGHT_BITS]
    return [alike.range(k, output.reads[k]) for k, s in enumerate(alike.sources) if s.dtype in EIGHT_BITS]


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
