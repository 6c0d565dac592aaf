"""A small layout language: text with places where a line may end, fitted to a width.

A group is laid out on one line if it fits, else every `Line` directly in it ends a line.

>>> inner = Indent(join(Line(""), "x,", Line(" "), "y", Broken(",")))
>>> doc = group(join("f(", inner, Line(""), ")"))
>>> lay_out(doc, 80)
'f(x, y)'
>>> print(lay_out(doc, 5))
f(
    x,
    y,
)
"""

from __future__ import annotations

from ...grammar.records import dataclass

_INDENT = 4


@dataclass(frozen=True, slots=True)
class Line:
    """A line end in a broken group; `flat` in one that is on one line."""

    flat: str


@dataclass(frozen=True, slots=True)
class Hard:
    """A line end always: a group that holds one is broken."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Text that is there only in a broken group: a trailing comma, the parentheses that allow line
    ends."""

    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """A comment: it breaks its group, and doesn't count for the width, so that it never changes the
    code's layout."""

    text: str


@dataclass(frozen=True, slots=True)
class Join:
    parts: tuple[Doc, ...]
    forced: bool


@dataclass(frozen=True, slots=True)
class Indent:
    """Line ends inside are followed by one more level of indentation."""

    doc: Doc


@dataclass(frozen=True, slots=True)
class Group:
    doc: Doc
    forced: bool


Doc = str | Line | Hard | Broken | Note | Join | Indent | Group


def join(*parts: Doc) -> Join:
    return Join(parts, any(map(_forced, parts)))


def group(doc: Doc) -> Group:
    return Group(doc, _forced(doc))


def _forced(doc: Doc) -> bool:
    match doc:
        case Hard() | Note():
            return True
        case Join() | Group():
            return doc.forced
        case Indent():
            return _forced(doc.doc)
        case _:
            return False


# What is left to write: indentation, whether its group is broken, and the document; the next one
# last.
_Work = list[tuple[int, bool, Doc]]


def lay_out(doc: Doc, width: int) -> str:
    """The text of a document, in lines of at most `width` characters where it has places to
    break."""
    out: list[str] = []
    column = 0
    pending = 0  # indentation that is owed, so that an empty line stays empty
    work: _Work = [(0, True, doc)]
    while work:
        indent, broken, item = work.pop()
        match item:
            case Join():
                work.extend((indent, broken, part) for part in reversed(item.parts))
            case Indent():
                work.append((indent + _INDENT, broken, item.doc))
            case Group():
                # in a group on one line all are: what may end a line only in brackets has none
                # around it there
                one_line = not broken or (not item.forced and _fits(width, column + pending, item.doc, work))
                work.append((indent, not one_line, item.doc))
            case Hard() | Line() if broken or isinstance(item, Hard):
                out.append("\n")
                column, pending = 0, indent
            case _:
                text = _text(item, broken)
                if text:
                    out.append(" " * pending + text)
                    end = text.rfind("\n")
                    column = len(text) - end - 1 if end >= 0 else column + pending + len(text)
                    pending = 0
    return "".join(out)


def _text(doc: Doc, broken: bool) -> str:
    match doc:
        case str():
            return doc
        case Note():
            return doc.text
        case Line():
            return doc.flat
        case Broken():
            return doc.text if broken else ""
        case _:
            return ""


def _fits(width: int, column: int, doc: Doc, rest: _Work) -> bool:
    """Whether `doc` on one line, with what must follow on that line, ends at `width` characters or
    before.

    A text of several lines is none the less part of the one line: what stands before it and behind
    it must fit.
    """
    work: _Work = [(0, False, doc)]
    following = len(rest)
    while True:
        if not work:
            if following == 0:
                return True
            following -= 1
            work.append(rest[following])
        _, broken, item = work.pop()
        match item:
            case Join():
                work.extend((0, broken, part) for part in reversed(item.parts))
            case Indent():
                work.append((0, broken, item.doc))
            case Group():
                work.append((0, item.forced, item.doc))
            case Hard():
                return True
            case Line() if broken:
                return True
            case Note():
                pass
            case _:
                first, *later = _text(item, broken).split("\n")
                if column + len(first) > width:
                    return False
                if later and following < len(rest):
                    return True
                column = len(later[-1]) if later else column + len(first)
