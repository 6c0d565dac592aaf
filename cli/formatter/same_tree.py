"""Whether two syntax trees say the same, wherever in a text they stand."""

from __future__ import annotations

from ...grammar.source import Span


def same(first: object, second: object) -> bool:
    """Whether two nodes (or tuples of them) are equal in all but their spans.

    >>> from mergec.grammar.parse import parse
    >>> from mergec.grammar.source import Source
    >>> texts = ("x + 1", "( x+1 )", "x + 1.0")
    >>> a, b, c = (parse(Source("r", f"* = {text}")).statements for text in texts)
    >>> same(a, b), same(a, c)
    (True, False)
    """
    pending: list[tuple[object, object]] = [(first, second)]
    while pending:
        one, other = pending.pop()
        if type(one) is not type(other):
            return False
        names = getattr(type(one), "__slots__", ())
        if isinstance(one, tuple) and isinstance(other, tuple):
            if len(one) != len(other):
                return False
            pending.extend(zip(one, other, strict=True))
        elif names:
            pairs = ((getattr(one, name), getattr(other, name)) for name in names)
            pending.extend(pair for pair in pairs if not isinstance(pair[0], Span))
        elif one != other:
            return False
    return True
