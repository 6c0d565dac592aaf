"""Text to syntax tree. No Lark tree leaves this folder, and every fault of a text is a
MergecError."""

from __future__ import annotations

import functools
import re
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.parsers.lalr_interactive_parser import InteractiveParser

from .ast import Module
from .build import Builder, too_deep
from .complaints import Fault, explain
from .diagnostic import Diagnostic, MergecError, error
from .error_codes import Exit
from .scan import MAX_ERRORS, Scan, scan
from .source import Source, Span
from .tables import parser

# One half of a pair of UTF-16, which a string in memory can hold alone.
_HALF = re.compile("[\ud800-\udfff]")

# A statement that begins so is meant as that statement, whatever it looks like.
_KEYWORD = re.compile(r"\s*(let|def|use|output|expect)\b(?!\s*\.)")


MAX_LENGTH = 1 << 19
"""The most characters that a recipe or library may have; a syntax tree takes some hundred times the
memory."""


def parse(source: Source) -> Module:
    """The syntax tree of a recipe or library.

    Raises MergecError: E0480 for a text that is too long, else every syntax error found, in the
    order of the text, at most `MAX_ERRORS` of them: after an error reading goes on at the next
    statement.
    """
    _check_text(source)
    scanned = scan(source)
    diagnostics = list(scanned.diagnostics)
    if not diagnostics:
        try:
            tree = _grammar("module").parse(scanned.text)
        except UnexpectedInput:
            pass  # found again below, statement by statement
        else:
            statements = _build(tree, source, 0, diagnostics)
            if not diagnostics:
                return Module(source, statements, scanned.comments)
            raise MergecError(_in_order(diagnostics))
    for chunk in scanned.chunks:
        if not chunk.broken and len(diagnostics) < MAX_ERRORS:
            _parse_part(source, scanned, chunk.start, chunk.end, diagnostics)
    raise MergecError(_in_order(diagnostics))


@functools.cache
def _grammar(start: str) -> Lark:
    """The parser for a start rule: `module`, which is at hand, or `expr`, which takes a tenth of a
    second.

    That comes with `module`, for its terminals: a line end is unexpected in an expression, but not
    a strange character.
    """
    return parser(start) if start == "module" else parser("module", start)


def _check_text(source: Source) -> None:
    """Sees that a text is one that a file can hold, and not too long. Raises MergecError (E0102,
    E0480)."""
    half = _HALF.search(source.text)
    if half is not None:
        raise error("E0102", "half of a character", Span(source, *half.span()), "no file can hold this")
    if len(source.text) > MAX_LENGTH:
        message = f"the text has {len(source.text)} characters, over the limit of {MAX_LENGTH}"
        raise error("E0480", message, file=source.name, exit=Exit.RECIPE)


def _parse_part(source: Source, scanned: Scan, start: int, end: int, diagnostics: list[Diagnostic]) -> None:
    """Adds what is wrong with the statement at `[start, end)` to `diagnostics`."""
    text = scanned.text[start:end]
    try:
        tree = _grammar("module").parse(text)
    except UnexpectedInput as error:
        diagnostics.append(explain(_fault(error, source, text, start)))
    else:
        _build(tree, source, start, diagnostics)


def _build(tree: Tree[Token], source: Source, offset: int, diagnostics: list[Diagnostic]) -> Any:
    deep = too_deep(tree, source, offset)
    if deep is not None:
        diagnostics.append(deep)
        return None
    builder = Builder(source, offset)
    value = builder.build(tree)
    diagnostics.extend(builder.diagnostics)
    return value


def _in_order(diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    return sorted(diagnostics, key=lambda each: each.labels[0].span.start)[:MAX_ERRORS]


# --- what went wrong ------------------------------------------------------------------------------


def _fault(error: UnexpectedInput, source: Source, text: str, offset: int) -> Fault:
    """Lark's exception in the terms of `syntax_errors`; `text` is what was parsed, at `offset` in
    the source."""
    start, end = _extent(error, text)
    expected: frozenset[str] = frozenset()
    if isinstance(error, UnexpectedToken):
        parser = error.interactive_parser
        expected = frozenset(_accepted(parser) if isinstance(parser, InteractiveParser) else error.expected)
        expected = expected or frozenset({"$END"})
    form, start_of_form, end_of_form = _form(text, start)
    if form == "assignment":
        start, end = start_of_form, end_of_form
    span = Span(source, offset + start, offset + end)
    return Fault(span, text[:start], text[start:], expected, _innermost(text[:start]), form)


def _accepted(parser: InteractiveParser) -> set[str]:
    """The terminals that could follow. Lark's own annotations stop short of this method."""
    accepted: set[str] = parser.accepts()  # type: ignore[no-untyped-call]
    return accepted


def _extent(error: UnexpectedInput, text: str) -> tuple[int, int]:
    """The range in `text` of what was not expected; empty, just after the last word, for an end."""
    if isinstance(error, UnexpectedCharacters):
        start = error.pos_in_stream or 0
        return start, start + 1
    stop = len(text)
    if isinstance(error, UnexpectedToken):
        start = error.token.start_pos or 0
        if error.token.type not in ("$END", "_END"):
            return start, start + len(error.token)
        if error.token.type == "_END":
            stop = start
    end = len(text[:stop].rstrip())
    return end, end


def _form(text: str, fault: int) -> tuple[str, int, int]:
    """Whether the statement is an expression, or an assignment to one, and the range of that
    expression."""
    if _KEYWORD.match(text):
        return "", 0, 0
    if _is_expression(text):
        return "expression", 0, len(text)
    for match in re.finditer(r"(?<![=<>!:+*/-])=(?!=)", text):
        if match.start() >= fault:
            left = text[: match.start()]
            # the first `=` after the fault, if it stands in no brackets: looking at all would take
            # long in a long text
            if not _innermost(left) and _is_expression(left):
                return "assignment", len(left) - len(left.lstrip()), len(left.rstrip())
            break
    return "", 0, 0


def _is_expression(text: str) -> bool:
    try:
        _grammar("expr").parse(text.strip("\r\n; \t"), start="expr")
    except UnexpectedInput:
        return False
    return True


def _innermost(text: str) -> str:
    """The innermost bracket that is open at the end of a text, or ""."""
    without_strings = re.sub(r'"{3}[\s\S]*?"{3}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', "", text)
    stack: list[str] = []
    for sign in re.findall(r"[()\[\]{}]", without_strings):
        if sign in "([{":
            stack.append(sign)
        elif stack:
            stack.pop()
    return stack[-1] if stack else ""
