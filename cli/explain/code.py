"""The page about an error code."""

from __future__ import annotations

import textwrap

from ...grammar.diagnostic import error
from ...grammar.error_codes import ERRORS


def explain_code(code: str) -> str:
    """The page about `code`, for a terminal. Raises MergecError (E0005) where there is no such
    code."""
    found = ERRORS.get(code)
    if found is None:
        raise error(
            "E0005", f"there is no error `{code}`", help="codes are printed with each error, as in `error[E0203]`"
        )
    example = textwrap.indent(found.example.strip("\n"), "    ")
    meaning, fix = (textwrap.fill(t.strip(), 100, break_on_hyphens=False) for t in (found.meaning, f"fix: {found.fix}"))
    return f"{code}: {found.title}\n\n{meaning}\n\nexample:\n\n{example}\n\n{fix}\n"
