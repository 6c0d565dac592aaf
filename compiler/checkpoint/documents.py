"""Small files beside an input's weights: texts of strangers, whose faults are diagnostics like any
other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...grammar.diagnostic import Diagnostic, MergecError, finding
from ...grammar.source import Span
from .catalog import Catalog, CatalogError, Checkpoint
from .model import Model


def catalog_diagnostic(error: CatalogError, span: Span, label: str = "asked for here") -> Diagnostic:
    """A catalog's complaint with the place in the recipe that the file is of."""
    notes = (f"in `{error.file}`", *error.notes) if error.file else error.notes
    return finding(error.code, error.message, span, label, notes=notes, help=error.help, file=error.file)


@contextmanager
def said_of(model: Model) -> Iterator[None]:
    """Turns what is wrong with a file of a model's folder into MergecError, as said of the
    model."""
    try:
        yield
    except CatalogError as error:
        raise MergecError(catalog_diagnostic(error, model.span, "of this model")) from None


def json_beside(catalog: Catalog, checkpoint: Checkpoint, name: str) -> dict[str, Any] | None:
    """The JSON object in the file `name` beside a checkpoint's weights; None where there is no such
    file.

    Raises CatalogError: E0436 for anything else, and what `Catalog.document` does.
    """
    text = catalog.document(checkpoint, name)
    if text is None:
        return None
    # no tokenizer is made of brackets; a text that is would swell to thirty times its size in
    # memory
    if len(text) > 1 << 20 and text.count("[") + text.count("{") > len(text) // 6:
        raise unsound(checkpoint, name, "it has more brackets than text")
    try:
        value = json.loads(text)
    except RecursionError:
        raise unsound(checkpoint, name, "its JSON is nested too deeply") from None
    except ValueError as error:
        raise unsound(checkpoint, name, f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise unsound(checkpoint, name, "its JSON is not an object")
    return value


def unsound(checkpoint: Checkpoint, name: str, what: str) -> CatalogError:
    """The error (E0436) about a file beside a checkpoint's weights."""
    return CatalogError("E0436", f"`{name}` can't be used: {what}", file=os.path.join(checkpoint.location, name))


def is_text(value: object) -> bool:
    """Whether a value is a string that a file can hold; JSON can spell halves of characters, which
    none can."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_text(value: Any) -> str:
    """A value as the text of a JSON file; characters stand for themselves where a file can hold
    them."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return (text if is_text(text) else json.dumps(value, indent=2)) + "\n"
