"""The page about an error code."""

from __future__ import annotations

import difflib

from ...compiler.errors import ERRORS, page
from ...grammar.diagnostic import Diagnostic, Exit, MergecError


def explain_code(code: str) -> str:
    """The page about `code`. Raises MergecError (E0005) where there is no such code."""
    found = page(code)
    if found is None:
        near = difflib.get_close_matches(code, list(ERRORS), 2, 0.6)
        mends = (f"did you mean {' or '.join(f'`{n}`' for n in near)}?",) if near else ()
        raise MergecError(Diagnostic("E0005", f"there is no error `{code}`", help=mends), Exit.USAGE)
    return found
