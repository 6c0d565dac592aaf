"""Names that someone may have meant, for `did you mean …?`."""

from __future__ import annotations

import difflib
from collections.abc import Collection

_LONGEST = 100
_MOST = 5000


def near(word: str, names: Collection[str], most: int = 3, cutoff: float = 0.6) -> list[str]:
    """Up to `most` of `names` that are most like `word`, the likest first.

    None where that would take long: for a very long word, or among very many names.

    >>> near("laysers", ["layers", "embed", "head"])
    ['layers']
    """
    if len(word) > _LONGEST or len(names) > _MOST:
        return []
    return difflib.get_close_matches(word, [n for n in names if len(n) <= _LONGEST], most, cutoff)
