"""Names: which may be bound, and what is said of one that is not known."""

from __future__ import annotations

from collections.abc import Iterable

from ...grammar import ast
from ...grammar.diagnostic import MergecError, error
from ...grammar.suggest import near
from ..checkpoint.dtypes import NAMES as DTYPE_NAMES
from .scopes import Scope

VARYING = ("layer", "depth")
"""Names of numbers that vary over the output."""

PLACE_WORDS = frozenset({"layers", "embed", "head", "norm", "encoder", "decoder", "text", "vision", *VARYING})
"""Names that a `let` or `def` can't take: they are places, or numbers that vary over the output."""

CALLED = {
    "model": 'model("./folder")',
    "lora": 'lora("./adapter")',
    "stack": "stack(a.layers[0..3], b.layers[2..5])",
    "tie": "head = tie(embed)",
    "union": "union(a, b)",
    "token": 'token(a, "<x>")',
    "advise": 'expect advise(weight >= 0, "this adds `b`")',
}
"""Words that look like functions and are no values, each as it is called."""


class Cascade(Exception):
    """The expression uses a name that has its own error."""


def declare(name: ast.Name, scope: Scope) -> None:
    """Sees that a name may be bound. Raises MergecError (E0213, E0206)."""
    if name.id in PLACE_WORDS:
        what = "varies over the layers" if name.id in VARYING else "is the name of a place"
        raise error("E0213", f"`{name.id}` {what} and can't be bound", name.span, "choose another name")
    if name.id in scope.values:
        raise error("E0206", f"`{name.id}` is bound twice", name.span, "a name is never rebound")


def unknown(node: ast.Name, scope: Scope, others: Iterable[str]) -> MergecError:
    """The error (E0201) for a name that is bound nowhere; `others` are known without being in a
    scope."""
    help_: tuple[str, ...]
    if node.id in CALLED:
        help_ = (f"call it: `{CALLED[node.id]}`",)
        return error("E0201", f"`{node.id}` is no value of its own", node.span, "not called", help=help_)
    names = {*others, *VARYING}
    inner: Scope | None = scope
    while inner is not None:
        names |= set(inner.values)
        inner = inner.outer
    likely = near(node.id, sorted(names), 2)
    help_ = (f"did you mean {' or '.join(f'`{n}`' for n in likely)}?",) if likely else ()
    if node.id in PLACE_WORDS:
        help_ = (f"`{node.id}` is a place: say of which model, as in `base.{node.id}`",)
    if node.id in DTYPE_NAMES:
        help_ = (f'a dtype is a string: `"{node.id}"`',)
    return error("E0201", f"no `{node.id}` is known here", node.span, "unknown name", help=help_)
