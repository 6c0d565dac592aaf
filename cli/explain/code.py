"""The page about an error code."""

from __future__ import annotations

from ...compiler.manual.errors import page
from ...grammar.diagnostic import Diagnostic, Exit, MergecError


def explain_code(code: str) -> str:
    """The page about `code`. Raises MergecError (E0005) where there is no such code."""
    found = page(code)
    if found is None:
        mend = "codes are printed with each error, as in `error[E0203]`"
        raise MergecError(Diagnostic("E0005", f"there is no error `{code}`", help=(mend,)), Exit.USAGE)
    return found
