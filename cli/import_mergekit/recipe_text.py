"""A recipe in the making: statements with the places in the YAML that they come from."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any

from ...grammar import ast
from ...grammar.diagnostic import Diagnostic, Label
from ...grammar.parse import parse
from ...grammar.records import dataclass
from ...grammar.source import Source, Span
from ..formatter.format import format_module
from .methods import METHODS


@dataclass(frozen=True, slots=True)
class ArgumentOrigin:
    """Where an argument comes from: itself, and the items of a list."""

    span: Span
    items: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """An expression, and the origins of the arguments of its method calls, in order."""

    text: str
    arguments: tuple[ArgumentOrigin, ...] = ()


@dataclass(frozen=True, slots=True)
class RecipeLine:
    """A statement below its comments; `gap`: with a blank line before it. Without `span` it is the
    importer's own."""

    text: str
    span: Span | None
    arguments: tuple[ArgumentOrigin, ...] = ()
    comments: tuple[str, ...] = ()
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """A recipe's text, formatted; `lines` are its statements in order. `warnings` point into the
    YAML."""

    text: str
    lines: tuple[RecipeLine, ...]
    warnings: tuple[Diagnostic, ...] = ()

    def traced(self, diagnostics: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
        """Findings about this recipe as findings about the YAML that it came from."""
        spans = _Spans(self)
        return tuple(dataclasses.replace(d, labels=spans.labels(d.labels)) for d in diagnostics)


def write_out(head: Sequence[str], lines: Sequence[RecipeLine], warnings: Sequence[Diagnostic]) -> Imported:
    """The formatted recipe; `head` are the comments at its top."""
    out: list[str] = [_comment(c) for c in head]
    for line in lines:
        if out and (line.gap or line is lines[0]):
            out.append("")
        out.extend(_comment(c) for c in line.comments)
        out.append(line.text)
    text = format_module(parse(Source("<imported recipe>", "\n".join(out) + "\n")))
    return Imported(text, tuple(lines), tuple(warnings))


def _comment(text: str) -> str:
    return f"# {text}".rstrip()


@dataclass(slots=True)
class _Spans:
    """From an offset in the recipe to a span of the YAML."""

    imported: Imported
    _starts: list[int] = field(init=False)
    _found: list[tuple[Span, Span]] = field(init=False)

    def __post_init__(self) -> None:
        module = parse(Source("<imported recipe>", self.imported.text))
        self._found = []
        for statement, line in zip(module.statements, self.imported.lines, strict=True):
            if line.span is None:
                continue
            self._found.append((statement.span, line.span))
            calls = [a for call in _calls(statement) for a in call.arguments]
            for argument, origin in zip(calls, line.arguments, strict=False):
                self._found.append((argument.span, origin.span))
                items = argument.value.items if isinstance(argument.value, ast.ListExpr) else ()
                self._found.extend((i.span, s) for i, s in zip(items, origin.items, strict=False))
        self._starts = [s.start for s, _ in self._found]

    def labels(self, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        out: dict[tuple[int, str], Label] = {}
        for label in labels:
            span = label.span
            if span.source.text == self.imported.text:
                span = self._origin(span) or span
            out.setdefault((span.start, label.text), Label(span, label.text))
        return tuple(out.values())

    def _origin(self, span: Span) -> Span | None:
        """The origin of the smallest known part around a span; later entries are the smaller
        ones."""
        for k in range(bisect.bisect_right(self._starts, span.start) - 1, -1, -1):
            inside, origin = self._found[k]
            if inside.start <= span.start < inside.end:
                return origin
        return None


def _calls(node: Any) -> Iterator[ast.Call]:
    """The calls of methods, and `output(…)`, below a statement, in the order of the text."""
    if isinstance(node, ast.OutputStatement):
        yield ast.Call(ast.Name("output", node.keyword), node.arguments, node.span)
    elif isinstance(node, ast.Call) and isinstance(node.function, ast.Name) and node.function.id in METHODS:
        yield node
    else:
        for item in ast.below(node):
            yield from _calls(item)
