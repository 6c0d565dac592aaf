"""The source of a merge method of the standard library, or the line about a function of the
language itself."""

from __future__ import annotations

from ...compiler.evaluate.builtins import BUILTINS
from ...compiler.evaluate.extensions import PrimitiveError
from ...compiler.evaluate.standard_library import Library
from ...grammar.diagnostic import error
from ...grammar.suggest import near
from ...runtime.catalog.extensions import Primitives


def explain_method(name: str) -> str:
    """The library file that defines the function `name`, with its comment; for one of the language
    or of an installed package, a line about it.

    Raises MergecError (E0004) for a name that none has, E0439 for a package that is broken.
    """
    library = Library(Primitives())
    found = library.source(name)
    if found is not None:
        file, text = found
        return f"# {file}\n\n{text.rstrip()}\n"
    try:
        builtin = BUILTINS.get(name) or library.primitive(name)
    except PrimitiveError as broken:
        raise error("E0439", f"the primitive `{name}` can't be used", notes=str(broken)) from None
    if builtin is not None:
        names = ", ".join(("*" if p.variadic else "") + p.name for p in builtin.parameters)
        return f"{name}({names})\n  {builtin.doc}\n"
    known = sorted({*library.names, *library.primitives, *BUILTINS})
    likely = near(name, known, 2)
    suggestions = f"did you mean {' or '.join(f'`{n}`' for n in likely)}?" if likely else ()
    note = f"the methods are {', '.join(f'`{n}`' for n in sorted(library.names))}"
    raise error("E0004", f"no method `{name}`", notes=note, help=suggestions)
