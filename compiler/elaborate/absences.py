"""What optional tensors models were found to lack, to be told once a model and call."""

from __future__ import annotations

from dataclasses import field

from ...grammar.diagnostic import Diagnostic, finding
from ...grammar.records import dataclass
from ...grammar.source import Span
from ..family.folding import listed
from ..family.space import Space
from ..terms.terms import Among, Region

_UNNAMED = "an expression"


@dataclass(slots=True, eq=False)
class Absences:
    """Output tensors for which a model dropped out of a function, or counted as zero."""

    dropped: dict[tuple[str, Span, str], dict[str, None]] = field(default_factory=dict)
    zero: dict[tuple[str, Span], dict[str, None]] = field(default_factory=dict)

    def drop(self, model: Region, among: Among, output: str) -> None:
        label = model.label or _UNNAMED
        self.dropped.setdefault((label, among.span, among.function), {})[output] = None

    def count_as_zero(self, model: Region, span: Span, output: str) -> None:
        self.zero.setdefault((model.label or _UNNAMED, span), {})[output] = None

    def warnings(self, space: Space) -> list[Diagnostic]:
        """W0572, one for each model and call."""
        found = [
            _warning(label, f"drops out of `{function}` there", span, names, space)
            for (label, span, function), names in self.dropped.items()
        ]
        found += [
            _warning(label, "counts as zero there", span, names, space) for (label, span), names in self.zero.items()
        ]
        return found


def _warning(label: str, what: str, span: Span, names: dict[str, None], space: Space) -> Diagnostic:
    tensors = "an optional tensor" if len(names) == 1 else f"{len(names)} optional tensors"
    return finding("W0572", f"`{label}` lacks {tensors}, and {what}", span, "lacks " + listed(names, space))
