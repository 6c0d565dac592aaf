"""Diagnostics as text for people and as JSON for editors. The only place where a diagnostic becomes
text."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from .diagnostic import Diagnostic, Label, Severity
from .records import dataclass
from .source import Source, Span

_TAB = 4
# Source lines that are wider are cut to a window around what is underlined.
_WIDEST_LINE = 160
_CONTEXT = 40
_LONGEST_TEXT = 4000


def render(diagnostics: Iterable[Diagnostic], color: bool = False) -> str:
    """Diagnostics one below the other, a blank line between them, each with its source lines
    underlined.

    `color` adds ANSI sequences; control characters that come from inputs are shown as escapes
    either way.
    """
    paint = _Paint(color)
    return "\n".join(_render_one(each, paint) for each in diagnostics)


def to_json(diagnostics: Iterable[Diagnostic]) -> str:
    """One JSON object per line: code, severity, message, file, line, column, end_line, end_column,
    labels, notes, help.

    Lines and columns count from 1 in characters, the end column is the one after the last
    character; all are null where a finding has no place in a text. Labels have the same fields and
    their own text and file.
    """
    return "".join(json.dumps(_as_json(each)) + "\n" for each in diagnostics)


def escape(text: str) -> str:
    r"""`text` with whatever could move a cursor, reverse the reading direction or hide made
    visible.

    >>> escape("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if _is_plain(c) else _escape_character(c) for c in text)


def _is_plain(c: str) -> bool:
    return c.isprintable() or unicodedata.category(c) == "Zs"


def _escape_character(c: str) -> str:
    point = ord(c)
    if c in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[c]
    if 0xDC80 <= point <= 0xDCFF:
        point -= 0xDC00  # a byte of a file's name that is not UTF-8, as Python keeps it
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


# --- JSON -----------------------------------------------------------------------------------------


def _as_json(diagnostic: Diagnostic) -> dict[str, Any]:
    where: dict[str, Any] = dict.fromkeys(("line", "column", "end_line", "end_column"))
    where = {"file": diagnostic.file, **where}
    if diagnostic.labels:
        where = _position(diagnostic.labels[0].span)
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity.value,
        "message": diagnostic.message,
        **where,
        "labels": [{**_position(label.span), "text": label.text} for label in diagnostic.labels],
        "notes": list(diagnostic.notes),
        "help": list(diagnostic.help),
    }


def _position(span: Span) -> dict[str, Any]:
    line, column = span.source.position(span.start)
    end_line, end_column = span.source.position(span.end)
    return {"file": span.source.name, "line": line, "column": column, "end_line": end_line, "end_column": end_column}


# --- text -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Paint:
    """ANSI colours, or none."""

    on: bool

    def __call__(self, style: str, text: str) -> str:
        codes = {"error": "1;31", "warning": "1;33", "gutter": "1;34", "secondary": "1;34", "strong": "1"}
        return f"\x1b[{codes[style]}m{text}\x1b[0m" if self.on and text.strip() else text


@dataclass(frozen=True, slots=True)
class _Mark:
    """An underline in one line, in display columns `[start, end)` from 0."""

    start: int
    end: int
    text: str
    primary: bool


def _render_one(diagnostic: Diagnostic, paint: _Paint) -> str:
    severity = diagnostic.severity.value
    message = paint("strong", ": " + _text(diagnostic.message, 0))
    lines = [paint(severity, f"{severity}[{escape(diagnostic.code)}]") + message]
    groups = _by_source(diagnostic.labels)
    last_line = max((source.position(label.span.end)[0] for source, labels in groups for label, _ in labels), default=0)
    gutter = " " * len(str(last_line))
    bar = paint("gutter", f"{gutter} |")
    for number, (source, labels) in enumerate(groups):
        line, column = source.position(labels[0][0].span.start)
        arrow = paint("gutter", f"{gutter}{'-->' if number == 0 else ':::'}")
        lines += [f"{arrow} {escape(source.name)}:{line}:{column}", bar]
        lines += _excerpt(source, labels, gutter, paint, diagnostic.severity)
    if not groups and diagnostic.file is not None:
        lines.append(paint("gutter", f"{gutter}-->") + " " + escape(diagnostic.file))
    trailers = [("note", note) for note in diagnostic.notes] + [("help", help) for help in diagnostic.help]
    if groups and trailers:
        lines.append(bar)
    for word, text in trailers:
        sign = paint("gutter", f"{gutter} =")
        lines.append(f"{sign} {paint('strong', word)}: {_text(text, len(gutter) + 3 + len(word) + 2)}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _text(text: str, indent: int) -> str:
    """Text of a message, note or help: it may have several lines, and everything else is escaped;
    an endless one, as a name from an input can make it, is cut."""
    if len(text) > _LONGEST_TEXT:
        text = text[:_LONGEST_TEXT] + "…"
    return ("\n" + " " * indent).join(escape(line) for line in text.split("\n"))


def _by_source(labels: Sequence[Label]) -> list[tuple[Source, list[tuple[Label, bool]]]]:
    """Labels grouped by source in order of appearance, each with whether it is the primary one."""
    groups: list[tuple[Source, list[tuple[Label, bool]]]] = []
    for index, label in enumerate(labels):
        for source, members in groups:
            if source == label.span.source:
                members.append((label, index == 0))
                break
        else:
            groups.append((label.span.source, [(label, index == 0)]))
    return groups


def _excerpt(
    source: Source, labels: list[tuple[Label, bool]], gutter: str, paint: _Paint, severity: Severity
) -> list[str]:
    """The source lines that labels touch, underlined; lines skipped between them are a row of
    dots."""
    marks: dict[int, list[_Mark]] = {}
    for label, primary in labels:
        for line, mark in _marks(label, primary):
            marks.setdefault(line, []).append(mark)
    lines: list[str] = []
    previous = 0
    for number in sorted(marks):
        if previous and number == previous + 2:
            shown = _Cells(source.line(previous + 1)).shown
            if len(shown) <= _WIDEST_LINE:
                lines.append(f"{paint('gutter', f'{previous + 1:>{len(gutter)}} |')} {shown}")
        elif previous and number > previous + 1:
            lines.append("...")
        shown, cut = _window(_Cells(source.line(number)).shown, marks[number])
        lines.append(f"{paint('gutter', f'{number:>{len(gutter)}} |')} {shown}")
        bar = paint("gutter", f"{gutter} |")
        lines += [f"{bar} {row}" for row in _underlines(cut, paint, severity)]
        previous = number
    return lines


def _marks(label: Label, primary: bool) -> list[tuple[int, _Mark]]:
    """The lines a label underlines: one, or the first and the last of a span over several lines."""
    source, span = label.span.source, label.span
    first, start = source.position(span.start)
    # A span that ends with a line end ends there, not at the beginning of the next line.
    end_offset = span.end - 1 if span.end > span.start and source.text[span.end - 1 : span.end] == "\n" else span.end
    last, end = source.position(max(end_offset, span.start))
    cells = _Cells(source.line(first))
    if first == last:
        left, right = cells.column(start - 1), cells.column(end - 1)
        return [(first, _Mark(left, max(right, left + 1), label.text, primary))]
    left = cells.column(start - 1)
    opening = _Mark(left, max(cells.width, left + 1), "", primary)
    text = source.line(last)
    cells = _Cells(text)
    indent = min(len(text) - len(text.lstrip()), end - 1)
    left = cells.column(indent)
    closing = _Mark(left, max(cells.column(end - 1), left + 1), label.text, primary)
    return [(first, opening), (last, closing)]


class _Cells:
    """A source line as it is shown, and the display column of each of its characters."""

    def __init__(self, line: str) -> None:
        pieces: list[str] = []
        self._columns = [0]
        for c in line:
            column = self._columns[-1]
            if c == "\t":
                piece = " " * (_TAB - column % _TAB)
                width = len(piece)
            elif not _is_plain(c):
                piece = _escape_character(c)
                width = len(piece)
            else:
                piece = c
                width = 0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
            pieces.append(piece)
            self._columns.append(column + width)
        self.shown = "".join(pieces)
        self.width = self._columns[-1]

    def column(self, index: int) -> int:
        return self._columns[min(index, len(self._columns) - 1)]


def _window(shown: str, marks: list[_Mark]) -> tuple[str, list[_Mark]]:
    """A line too wide to show, cut to the surroundings of its first mark; wide characters count as
    one there."""
    if len(shown) <= _WIDEST_LINE:
        return shown, marks
    start = max(0, min(mark.start for mark in marks) - _CONTEXT)
    end = start + _WIDEST_LINE
    head, tail = "…" if start else "", "…" if end < len(shown) else ""
    shift = start - len(head)
    limit = _WIDEST_LINE + len(head)
    cut = [
        _Mark(mark.start - shift, min(max(mark.end - shift, mark.start - shift + 1), limit), mark.text, mark.primary)
        for mark in marks
        if mark.start - shift < limit
    ]
    return head + shown[start:end] + tail, cut


def _underlines(marks: list[_Mark], paint: _Paint, severity: Severity) -> list[str]:
    """The rows below a source line: underlines, then the labels' texts, the rightmost beside its
    underline.

    ```
    ties(a, b)
         -  ^ this one is right here
         |
         and this one below
    ```
    """

    def style(mark: _Mark) -> str:
        return severity.value if mark.primary else "secondary"

    # The primary mark is drawn last, over the others.
    signs: dict[int, tuple[str, str]] = {}
    for mark in sorted(marks, key=lambda each: each.primary):
        for column in range(mark.start, mark.end):
            signs[column] = ("^" if mark.primary else "-", style(mark))
    row = _draw(signs, paint)
    told = sorted((mark for mark in marks if mark.text), key=lambda each: (each.start, each.primary))
    below = told
    right = max(mark.end for mark in marks)
    if told and told[-1].end == right:
        row += " " + paint(style(told[-1]), _text(told[-1].text, 0).replace("\n", " "))
        below = told[:-1]
    rows = [row]
    if below:
        rows.append(_draw({mark.start: ("|", style(mark)) for mark in below}, paint))
    while below:
        last = below[-1]
        below = below[:-1]
        bars = {mark.start: ("|", style(mark)) for mark in below if mark.start < last.start}
        lead = _draw(bars, paint)
        width = max(bars, default=-1) + 1
        rows.append(lead + " " * (last.start - width) + paint(style(last), _text(last.text, 0).replace("\n", " ")))
    return rows


def _draw(signs: dict[int, tuple[str, str]], paint: _Paint) -> str:
    """Signs at their columns, runs of one style painted together."""
    pieces: list[str] = []
    column = 0
    for start in sorted(signs):
        if start < column:
            continue
        pieces.append(" " * (start - column))
        style = signs[start][1]
        end = start
        while end in signs and signs[end][1] == style:
            end += 1
        pieces.append(paint(style, "".join(signs[each][0] for each in range(start, end))))
        column = end
    return "".join(pieces)
