"""Members and indices as they are written: places, names of libraries, items of lists."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ...grammar import ast
from ...grammar.diagnostic import MergecError, error
from ...grammar.source import Span
from ..family.place import GlobStep, IndexStep, Interval, NameStep, Path
from ..terms.kinds import kind_of
from ..terms.restrict import at
from ..terms.terms import Leaf, is_region
from ..terms.varying import varies
from .scopes import Namespace, Scope


class Access:
    """Follows members and indices. `value` evaluates the expressions in them, `span` says where to
    point for one."""

    def __init__(self, value: Callable[[ast.Expr, Scope], Any], span: Callable[[ast.Expr], Span]) -> None:
        self._value, self._span = value, span

    def path(self, place: ast.Expr, scope: Scope) -> Path:
        """A place expression with its indices evaluated. Raises MergecError (E0108) for what is no
        place."""
        if isinstance(place, ast.Star):
            return Path((), place.span)
        steps: list[NameStep | IndexStep | GlobStep] = []
        node: ast.Expr = place
        while True:
            if isinstance(node, ast.Name):
                steps.append(NameStep(node.id, node.span))
                break
            if isinstance(node, ast.String):
                steps.append(GlobStep(node.value, node.span))
                break
            if not isinstance(node, ast.Member | ast.Index):
                raise error("E0108", "this is not a place", node.span)
            steps.append(self._step(node, scope))
            node = node.object
        return Path(tuple(reversed(steps)), place.span)

    def _step(self, node: ast.Member | ast.Index, scope: Scope) -> NameStep | IndexStep | GlobStep:
        if isinstance(node, ast.Member):
            tail = _tail(node)
            return GlobStep(node.name, tail) if node.glob else NameStep(node.name, tail)
        intervals = []
        for selector in node.selectors:
            if isinstance(selector, ast.All):
                if len(node.selectors) == 1:
                    return IndexStep((), selector.span)
                intervals.append(Interval(None, None, 1, False, selector.span))
            elif isinstance(selector, ast.Item):
                n = self._number(selector.value, scope)
                intervals.append(Interval(n, n, 1, True, selector.span))
            else:
                start = None if selector.start is None else self._number(selector.start, scope)
                stop = None if selector.stop is None else self._number(selector.stop, scope)
                step = 1 if selector.step is None else self._number(selector.step, scope)
                if step < 1:
                    raise error("E0303", "a step is 1 or more", selector.span, f"this goes by {step}")
                intervals.append(Interval(start, stop, step, False, selector.span))
        return IndexStep(tuple(intervals), node.span)

    def _number(self, node: ast.Expr, scope: Scope) -> int:
        """A number in the index of a place. It is written out or has a name: `0-3` would be taken
        for a range."""
        plain = node.operand if isinstance(node, ast.Unary) and node.op == "-" else node
        if isinstance(plain, ast.Binary | ast.Unary | ast.Conditional | ast.Call | ast.Member | ast.Index):
            raise _worked_out(node)
        dotted = re.fullmatch(r"(\d+)\.(\d+)", node.span.text) if isinstance(node, ast.Number) else None
        return self._whole(node, scope, _range(*dotted.groups()) if dotted else _FORMS)

    def _whole(self, node: ast.Expr, scope: Scope, *help_: str) -> int:
        value = self._value(node, scope)
        if isinstance(value, bool) or not isinstance(value, int):
            shown = f"{value:g}" if isinstance(value, float) else kind_of(value)
            if varies(value):
                shown = "one that varies"
            label = "a layer's number is needed" if help_ else "a whole number is needed"
            raise error("E0208", f"an index is a whole number, not {shown}", node.span, label, help=help_)
        return value

    def of(self, node: ast.Member | ast.Index, scope: Scope) -> Any:
        chain: list[ast.Member | ast.Index] = []
        inner: ast.Expr = node
        while isinstance(inner, ast.Member | ast.Index):
            chain.append(inner)
            inner = inner.object
        value = self._value(inner, scope)
        steps: list[NameStep | IndexStep | GlobStep] = []
        for part in reversed(chain):
            if is_region(value):
                steps.append(self._step(part, scope))
            elif isinstance(value, Namespace) and isinstance(part, ast.Member):
                if part.name not in value.scope.values:
                    known = ", ".join(f"`{n}`" for n in value.scope.values)
                    raise error(
                        "E0201",
                        f"`{value.name}` has no `{part.name}`",
                        _tail(part),
                        "unknown name",
                        notes=f"it has {known}" if known else (),
                    )
                value = value.scope.values[part.name]
            elif isinstance(value, tuple) and isinstance(part, ast.Index):
                value = self._item(value, part, scope)
            else:
                raise error("E0208", f"{kind_of(value)} has no parts", part.span, "not a region")
        if not steps:
            return value
        path = Path(tuple(steps), node.span)
        region = at(value, path, self._span(node))
        if isinstance(region, Leaf) and region.path is not None:
            region.model.space.select(region.path)
        return region

    def _item(self, value: tuple[Any, ...], node: ast.Index, scope: Scope) -> Any:
        selector = node.selectors[0]
        if len(node.selectors) != 1 or not isinstance(selector, ast.Item):
            raise error("E0208", "a list takes a single index", node.span)
        n = self._whole(selector.value, scope)
        if not -len(value) <= n < len(value):
            raise error(
                "E0303",
                f"index {n} is out of range of a list of {len(value)}",
                selector.span,
                f"not in 0..{len(value) - 1}",
            )
        return value[n]


_FORMS = "an index is a number, a range such as `0..3` (both ends included), or a list such as `0, 3`"


def _range(low: object, high: object) -> str:
    return f"a range is written `{low}..{high}`, both ends included"


def _worked_out(node: ast.Expr) -> MergecError:
    """The error for an index that is an expression; two numbers with a minus are most likely meant
    for a range."""
    ends = _ends(node)
    label, help_ = "a difference, not a range", [_range(*ends) if ends else _FORMS]
    if ends is None:
        label = "an expression"
        help_.append("a number that is worked out gets a name first: `let last = 2*4 - 1`, then `layers[0..last]`")
    return error("E0113", "an index of a place can't be an expression", node.span, label, help=help_)


def _ends(node: ast.Expr) -> tuple[int | float, int | float] | None:
    """The two numbers of `0-3`, the smaller one first unless one counts from the end."""
    if not isinstance(node, ast.Binary) or node.op != "-":
        return None
    ends = []
    for side in (node.left, node.right):
        minus = isinstance(side, ast.Unary) and side.op == "-"
        number = side.operand if isinstance(side, ast.Unary) and minus else side
        if not isinstance(number, ast.Number):
            return None
        ends.append(-number.value if minus else number.value)
    low, high = sorted(ends) if min(ends) >= 0 else ends
    return low, high


def _tail(node: ast.Member) -> Span:
    """The span of a member's name."""
    tail = Span(node.span.source, node.object.span.end, node.span.end)
    offset = len(tail.text) - len(tail.text.lstrip(". \t\n"))
    return Span(tail.source, tail.start + offset, tail.end)
