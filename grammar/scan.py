"""A first look at a text, without its grammar: comments, brackets, and where statements end.

    let x = f(a,  # why
              b)
    let y = 1

has one comment and two statements, and the grammar is handed

    let x = f(a,
              b)
    let y = 1

with the comment and the first line end as spaces, so that offsets stay what they were.
"""

from __future__ import annotations

import re
from dataclasses import field

from .ast import Comment
from .diagnostic import Diagnostic, Label, finding
from .records import dataclass
from .source import Source, Span

# Every stage above may recurse into an expression; a hundred levels stay far below Python's own
# limit.
MAX_DEPTH = 100
# Enough to work through at one sitting; what comes later is mostly the echo of what came before.
MAX_ERRORS = 20

_TOKEN = re.compile(
    r"""
      (?P<comment>\#[^\n]*)
    | (?P<string>"{3}[^"\\]*(?:(?:\\[\s\S]|"(?!""))[^"\\]*)*"{3} | "(?!"")[^"\\\n]*(?:\\[^\n][^"\\\n]*)*")
    | (?P<open_long>"{3})
    | (?P<open_string>"[^\n]*)
    | (?P<foreign_string>'[^'\n]*')
    | (?P<opener>[(\[{])
    | (?P<closer>[)\]}])
    | (?P<end>\r?\n|;)
    """,
    re.VERBOSE,
)
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_DEF = re.compile(r"\s*def\b")
# What can't follow a line end inside ( ) or [ ], whatever its indentation: a keyword is no name.
_STATEMENT_WORD = re.compile(r"[ \t]*(?:(?:let|def|use|expect)[ \t]+[\w\"])")
# A line at the margin that looks like a statement: where reading goes on after a bracket that is
# never closed.
_STATEMENT_LINE = re.compile(r"^(?:(?:let|def|use|expect)\b|output[ \t]*\(|[A-Za-z_*\"][^=\n#()]*=(?!=))", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The offsets of one statement's text; `broken` where a diagnostic about it has been made
    already."""

    start: int
    end: int
    broken: bool


@dataclass(frozen=True, slots=True)
class Scan:
    """`text` is as long as the source's: comments, and line ends that end no statement, are spaces
    in it."""

    text: str
    chunks: tuple[Chunk, ...]
    comments: tuple[Comment, ...]
    diagnostics: tuple[Diagnostic, ...]


def scan(source: Source) -> Scan:
    """Look over `source` once. Never raises; its findings are E0103, E0104 and E0107."""
    return _Scanner(source).run()


@dataclass(frozen=True, slots=True)
class _Open:
    sign: str
    offset: int
    block: bool


@dataclass(slots=True)
class _Scanner:
    source: Source
    position: int = 0
    chunk_start: int = 0
    broken: bool = False
    stack: list[_Open] = field(default_factory=list)
    blanks: list[tuple[int, int]] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def run(self) -> Scan:
        text = self.source.text
        while len(self.diagnostics) < MAX_ERRORS:
            match = _TOKEN.search(text, self.position)
            if match is None:
                if not self.stack or not self._recover():
                    break
                continue
            self.position = match.end()
            if not self._take(match):
                self.broken = True
                break
        self._end_chunk(len(text))
        return Scan(self._blanked(), tuple(self.chunks), tuple(self.comments), tuple(self.diagnostics))

    def _take(self, match: re.Match[str]) -> bool:
        """Note one token; False where nothing after it can be made sense of."""
        match match.lastgroup:
            case "comment":
                text = match[0].rstrip()
                self.comments.append(Comment(text, self._span(match.start(), match.start() + len(text))))
                self.blanks.append(match.span())
            case "opener":
                return self._open(match[0], match.start())
            case "closer":
                self._close(match[0], match.start())
            case "end":
                self._end(match)
            case "open_string":
                self._unterminated_string(match)
            case "open_long":
                label = Label(self._span(*match.span()), "it opens here")
                self._report("E0104", 'this `"""` string never ends', label)
                self.position = len(self.source.text)
                return False
        return True

    def _end(self, match: re.Match[str]) -> None:
        if not self.stack:
            self._end_chunk(match.start())
            self.chunk_start = match.end()
        elif not self.stack[-1].block and match[0] != ";":
            if self.stack[-1].sign != "{" and _STATEMENT_WORD.match(self.source.text, match.end()):
                self._report_unclosed()
                while self.stack and not self.stack[-1].block:
                    self.stack.pop()
                self._end(match)
            else:
                self.blanks.append(match.span())

    def _end_chunk(self, end: int) -> None:
        if self.broken or self.source.text[self.chunk_start : end].strip(" \t\f\ufeff"):
            self.chunks.append(Chunk(self.chunk_start, end, self.broken))
        self.broken = False

    def _open(self, sign: str, offset: int) -> bool:
        if len(self.stack) >= MAX_DEPTH:
            label = Label(self._span(offset, offset + 1), f"more than {MAX_DEPTH} brackets are open here")
            self._report("E0107", "brackets are nested too deeply", label, help="name the inner parts with `let`")
            return False
        self.stack.append(_Open(sign, offset, sign == "{" and self._opens_block(offset)))
        return True

    def _opens_block(self, offset: int) -> bool:
        """Whether the `{` here follows the parameters of a def; any other begins a place map."""
        text = self.source.text
        before = offset - 1
        while before >= 0 and text[before] in " \t\f":
            before -= 1
        return not self.stack and text[before : before + 1] == ")" and _DEF.match(text, self.chunk_start) is not None

    def _close(self, sign: str, offset: int) -> None:
        here = self._span(offset, offset + 1)
        if self.stack and _PAIRS[self.stack[-1].sign] == sign:
            self.stack.pop()
        elif not self.stack:
            self._report("E0103", f"`{sign}` closes nothing", Label(here, "no bracket is open here"))
        else:
            innermost = self.stack[-1]
            label = Label(self._span(innermost.offset, innermost.offset + 1), "this one is open")
            message = f"expected `{_PAIRS[innermost.sign]}`, found `{sign}`"
            self._report("E0103", message, Label(here, f"this closes no `{innermost.sign}`"), label)
            # It closes one further out, the inner one having been forgotten; else it is a slip for
            # the inner one's.
            if any(_PAIRS[each.sign] == sign for each in self.stack):
                while _PAIRS[self.stack[-1].sign] != sign:
                    self.stack.pop()
            self.stack.pop()

    def _unterminated_string(self, match: re.Match[str]) -> None:
        start = match.start()
        text = match[0].rstrip()
        help = 'close it with `"`, or write `"""…"""` over several lines'
        self._report(
            "E0104", "this string doesn't end on its line", Label(self._span(start, start + len(text))), help=help
        )
        # What was meant to follow the string closes brackets that are open, or they would be
        # reported too.
        tail = re.search(r"[)\]}, ;]*$", text)
        for sign in tail[0] if tail else "":
            if self.stack and _PAIRS[self.stack[-1].sign] == sign:
                self.stack.pop()

    def _recover(self) -> bool:
        """At the end of the text with brackets open: report, and go back to the next line like a
        statement."""
        innermost = self.stack[-1]
        self._report_unclosed()
        self.stack.clear()
        line_end = self.source.text.find("\n", innermost.offset)
        found = _STATEMENT_LINE.search(self.source.text, line_end + 1) if line_end >= 0 else None
        if found is None:
            return False
        resume = found.start()
        self._end_chunk(resume)
        self.chunk_start = self.position = resume
        while self.comments and self.comments[-1].span.start >= resume:
            self.comments.pop()
        return True

    def _report_unclosed(self) -> None:
        """E0103 about the innermost open bracket, unless the statement has been found broken
        before."""
        *outer, innermost = self.stack
        if not self.broken:
            labels = [Label(self._span(each.offset, each.offset + 1), "nor is this") for each in reversed(outer)]
            here = Label(self._span(innermost.offset, innermost.offset + 1), "it opens here")
            message = f"`{innermost.sign}` is never closed"
            self._report(
                "E0103", message, here, *labels[:3], help=f"add the `{_PAIRS[innermost.sign]}` that is missing"
            )

    def _report(self, code: str, message: str, *labels: Label, help: str = "") -> None:
        self.broken = True
        self.diagnostics.append(finding(code, message, labels, help=help or ()))

    def _span(self, start: int, end: int) -> Span:
        return Span(self.source, start, end)

    def _blanked(self) -> str:
        text, last = self.source.text, 0
        pieces: list[str] = []
        for start, end in self.blanks:
            if start < last:  # seen a second time, after going back
                continue
            pieces += (text[last:start], " " * (end - start))
            last = end
        pieces.append(text[last:])
        return "".join(pieces)
