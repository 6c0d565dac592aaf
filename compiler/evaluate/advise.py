"""`advise(condition, message, about, help)`: an expectation whose failure is a warning, not an
error.

A method says so what it can compute but what is hardly meant, as in `expect advise(min(w) >= 0,
"…", weight)`.
"""

from __future__ import annotations

from typing import Any

from ...grammar import ast
from ...grammar.diagnostic import Diagnostic, error, finding
from ...grammar.source import Span
from ..terms.kinds import kind_of
from ..terms.terms import Vary, Where
from ..terms.varying import resolve, varies
from .calls import Parameter, match
from .expressions import Expressions
from .scopes import Scope

_PARAMETERS = (
    Parameter("condition"),
    Parameter("message", kind="string"),
    Parameter("about", None),
    Parameter("help", None, kind="string"),
)


def advise(expressions: Expressions, node: ast.Call, scope: Scope) -> Any:
    """The value of `advise(…)`: true, after a warning (W0570) where the condition is false.

    The warning points at the argument of the recipe that `about` is, else at the call. Where the
    condition varies over the output, the warning comes with the first tensor for which it is false.
    """
    given = match("advise", _PARAMETERS, expressions.arguments(node, scope), node.span)
    condition, span = given["condition"].value, expressions.span(node)
    if "about" in given:
        # a parameter stands for what the caller gave
        names = (a.value for a in node.arguments if isinstance(a.value, ast.Name))
        meant = next((n.id for n in names if n.span == given["about"].span), "")
        span = scope.span_of(meant) or given["about"].span
    if not isinstance(condition, bool) and not varies(condition):
        raise error(
            "E0208",
            f"`advise` takes a condition that is known while compiling, not {kind_of(condition)}",
            expressions.span(node),
            f"this is {kind_of(condition)}",
        )
    message = str(given["message"].value)
    fix = (str(given["help"].value),) if "help" in given and given["help"].value is not None else ()
    sink = expressions.advice

    def check(holds: Any, tensor: str = "") -> bool:
        if holds is not True:
            _warn(sink, message, span, fix, (f"at `{tensor}`",) if tensor else ())
        return True

    if isinstance(condition, bool):
        return check(condition)

    def at(where: Where) -> bool:
        return check(resolve(condition, where), where.output)

    return Vary(at, span, node.span.text)


def _warn(sink: list[Diagnostic], message: str, span: Span, fix: tuple[str, ...], notes: tuple[str, ...]) -> None:
    """Adds the warning, once per message and place: a method is asked for many tensors."""
    if not any(d.message == message and d.labels[0].span == span for d in sink):
        sink.append(finding("W0570", message, span, "here", notes=notes, help=fix))
