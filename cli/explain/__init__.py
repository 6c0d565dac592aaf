"""`--explain`: what a recipe compiles to, for people and for programs."""

from __future__ import annotations

from ...compiler.pipeline import Compilation
from ..terminal.arguments import UsageError
from .dot import explain_dot
from .file import explain_file, tensors_of
from .json import explain_json
from .mermaid import explain_mermaid
from .output_target import explain_target
from .place import explain_place
from .text import explain_text

__all__ = ["checkpoint", "code", "explain", "method"]

FORMS = {"text": explain_text, "json": explain_json, "dot": explain_dot, "mermaid": explain_mermaid}


def explain(compilation: Compilation, form: str = "text", place: str | None = None, target: str | None = None) -> str:
    """The explanation in one of `FORMS`; with a place, the story of the tensors there, as text. The
    place may also be a weight file of an input: then what depends on it.

    With a target, the text also says what would have to be done for it, given what is there.

    Raises MergecError for a place that is none, and for one together with another form than text.
    """
    if place is None:
        text = FORMS[form](compilation)
        return text + "\n" + explain_target(compilation, target) if target is not None and form == "text" else text
    if form != "text":
        raise UsageError(f"a place is explained as text, not as {form}", f"leave out `{place}`, or `={form}`")
    tensors = tensors_of(compilation, place)
    return explain_file(compilation, place, tensors) if tensors else explain_place(compilation, place)
