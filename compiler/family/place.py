"""Places as the recipe writes them, with their indices evaluated: names, indices and globs, one
after the other."""

from __future__ import annotations

from dataclasses import field

from ...grammar.records import dataclass
from ...grammar.source import Span


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends included; None is open. A single index has `single` set."""

    start: int | None
    stop: int | None
    step: int
    single: bool
    span: Span


@dataclass(frozen=True, slots=True)
class IndexStep:
    """`[0..7, 12]`; no interval at all is `[*]`."""

    intervals: tuple[Interval, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class NameStep:
    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class GlobStep:
    pattern: str
    span: Span


@dataclass(frozen=True, slots=True)
class Path:
    """A place. No steps: everything (`*`)."""

    steps: tuple[NameStep | IndexStep | GlobStep, ...]
    span: Span
    text: str = field(init=False, repr=False, compare=False)
    """The path spelled canonically: equal text, equal place."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self._spelled())

    def __str__(self) -> str:
        return self.span.text

    def join(self, other: Path) -> Path:
        return Path(self.steps + other.steps, self.span)

    def _spelled(self) -> str:
        out: list[str] = []
        for step in self.steps:
            if isinstance(step, IndexStep):
                parts = [
                    str(i.start)
                    if i.single
                    else f"{'' if i.start is None else i.start}..{'' if i.stop is None else i.stop}"
                    + (f" by {i.step}" if i.step != 1 else "")
                    for i in step.intervals
                ]
                out.append(f"[{', '.join(parts) or '*'}]")
            else:
                shown = step.name if isinstance(step, NameStep) else f'"{step.pattern}"'
                out.append(("." if out else "") + shown)
        return "".join(out) or "*"
