"""Recipes spelled in any way that the grammar allows: blank space, line ends and comments between
any two words."""

from __future__ import annotations

import random
import re

_WORD = re.compile(
    r'"{3}[^"\\]*(?:(?:\\[\s\S]|"(?!""))[^"\\]*)*"{3}|"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"'
    r"|[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?|[A-Za-z_]\w*|\.\.|\*\*|[<>=!]=|\n|[^\s]"
)
_CLOSES = {"(": ")", "[": "]", "{": "}"}
_BLANK = ("", "", "", " ", "  ", "\t", " \t ")
_COMMENTS = (
    "# one",
    "#",
    "# trailing blanks \t",
    "# ends ) ] } in brackets",
    '# "quotes"',
    "# größer, 漢字 \u2028 x",
    "#!; let x = 1",
)


_LONG = ('"""two\n   lines # of it"""', '"""\n\n"three" ; lines\n"""', '"""' + "w" * 60 + '\n"""')


def respelled(text: str, draw: random.Random, loose: float, *, long: bool = False) -> str:
    """A recipe without comments in another spelling; `loose` is how often something stands between
    two words.

    With `long` some of its strings are others, of several lines.
    """
    out: list[str] = []
    count = 0

    def comment() -> str:
        nonlocal count
        count += 1
        return f"{draw.choice(_COMMENTS)} {count}" if draw.random() < 0.9 else draw.choice(_COMMENTS)

    def blank(inside: bool) -> str:
        if draw.random() >= loose:
            return draw.choice(_BLANK)
        pieces = [draw.choice(_BLANK)]
        for _ in range(draw.choice((1, 1, 1, 2, 3)) if inside else 0):
            pieces.append(draw.choice(("\n", "\n\n", comment() + "\n", comment() + "\n\n\n")) + draw.choice(_BLANK))
        return "".join(pieces)

    def end() -> str:
        pieces = [draw.choice(_BLANK)]
        for _ in range(draw.choice((1, 1, 2, 3))):
            pieces.append(draw.choice(("\n", "\n", ";", "; ;\n\n", comment() + "\n", "\n\n\n" + comment() + "\n")))
            pieces.append(draw.choice(_BLANK))
        return "".join(pieces)

    brackets: list[str] = []
    first, before = "", ""
    out.append(draw.choice(("", "", "\n", comment() + "\n", "\n\n" + comment() + "\n\n")))
    for word in _WORD.findall(text):
        block = bool(brackets) and brackets[-1] == "block"
        if word == "\n":
            if (not brackets or block) and before not in ("", "\n") and not (block and before == "{"):
                out.append(end())
            first = first if brackets else ""
            before = "\n" if not brackets or block else before
            continue
        if word in _CLOSES.values() and brackets:
            kind = brackets.pop()
            out.append(end() if kind == "block" and before != "\n" and draw.random() < 0.5 else blank(kind != "block"))
        elif before not in ("", "\n"):
            glued = re.match(r"\w", word) and re.match(r"\w", before[-1])
            gap = blank(bool(brackets) and not block)
            out.append(gap if gap or not glued else " ")
        first = first or word
        # the file of a `use` and a glob below a place are of one line
        if long and word[0] == '"' and before not in (".", "use") and draw.random() < 0.5:
            word = draw.choice(_LONG)
        out.append(word)
        if word in _CLOSES:
            opens = word == "{" and before == ")" and not brackets and first == "def"
            brackets.append("block" if opens else word)
            if opens:
                out.append(draw.choice(("", end())))
        before = word
    out.append(draw.choice(("", "\n", "  " + comment(), "\n\n" + comment() + "\n", ";")))
    spelled = "".join(out)
    return spelled.replace("\n", "\r\n") if draw.random() < 0.15 else spelled
