"""Text in aligned columns of limited width."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from ...grammar.render import escape

WIDTH = 100
"""The widest line of an explanation, in characters."""


# a number and its unit stay on one line
_UNIT = re.compile(r"(?<=\d) (?=[kKMGT]?i?B\b)")
_JOINT = "\N{NO-BREAK SPACE}"


def clip(text: str, width: int) -> str:
    """`text` on one line, escaped, its end cut off where it is too long.

    >>> clip("ties(a, b)", 8)
    'ties(a,…'
    """
    shown = escape(" ".join(text.split()))
    return shown if len(shown) <= width else shown[: max(0, width - 1)] + "…"


def clip_front(text: str, width: int) -> str:
    """Like `clip`, for paths: the end is what matters.

    >>> clip_front("/models/llama", 8)
    '…s/llama'
    """
    shown = escape(text)
    return shown if len(shown) <= width else "…" + shown[len(shown) - width + 1 :]


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as lines, cells two spaces apart; columns whose numbers are in `right` are flush right.

    >>> columns([("a", "1"), ("bc", "10")], right=(1,))
    ['  a    1', '  bc  10']
    """
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))] if rows else []
    lines = []
    for row in rows:
        cells = [c.rjust(w) if k in right else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def facts(rows: Sequence[tuple[str, str]], indent: int = 2) -> list[str]:
    """Names and texts in two columns, long texts folded within theirs."""
    width = max((len(name) for name, _ in rows), default=0)
    lead = " " * (indent + width + 2)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(_UNIT.sub(_JOINT, text), WIDTH - len(lead), break_on_hyphens=False) or [""]
        lines.append(" " * indent + name.ljust(width) + "  " + wrapped[0])
        lines.extend(lead + rest for rest in wrapped[1:])
    return [line.replace(_JOINT, " ").rstrip() for line in lines]
