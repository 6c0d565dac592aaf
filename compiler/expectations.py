"""`expect` at the top of a recipe: facts about the output, checked once the graph is known."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from ..grammar import ast
from ..grammar.diagnostic import Diagnostic, Label, MergecError
from .elaborate import Elaboration
from .evaluate import Recipe, place_path


def check_expectations(recipe: Recipe, elaboration: Elaboration, parameters: int) -> None:
    """Checks every `expect`. Raises MergecError (E0214) with all that do not hold.

    Besides numbers and lets, an expectation can use `params` (the output's parameters, ties counted once), `tensors` (how many
    are stored), `tied(place, place)` and `shape(place)`.
    """
    errors: list[Diagnostic] = []
    for expect in recipe.expects:
        try:
            facts = _Facts(recipe, elaboration, parameters)
            holds = facts.value(expect.condition)
            if holds is not True:
                seen = facts.seen
                shown = "; ".join(f"`{k}` is {v}" for k, v in seen.items())
                message = expect.message.value if expect.message else "an expectation does not hold"
                errors.append(
                    Diagnostic(
                        "E0214", message, (Label(expect.condition.span, "is false"),), notes=(shown,) if shown else ()
                    )
                )
        except MergecError as error:
            errors.extend(error.diagnostics)
    if errors:
        raise MergecError(errors)


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
}


class _Facts:
    def __init__(self, recipe: Recipe, elaboration: Elaboration, parameters: int) -> None:
        self.recipe, self.elaboration = recipe, elaboration
        self.known = {"params": parameters, "tensors": len(elaboration.graph.outputs)}
        self.seen: dict[str, Any] = {}

    def value(self, node: ast.Expr) -> Any:
        if isinstance(node, ast.Number | ast.String | ast.Boolean):
            return node.value
        if isinstance(node, ast.Name):
            if node.id in self.known:
                self.seen[node.id] = f"{self.known[node.id]:_}"
                return self.known[node.id]
            found, value = self.recipe.scope.find(node.id)
            if found and isinstance(value, int | float | str | bool):
                return value
        if isinstance(node, ast.ListExpr):
            return tuple(self.value(item) for item in node.items)
        if isinstance(node, ast.Unary):
            inner = self.value(node.operand)
            return not inner if node.op == "not" else -inner if node.op == "-" else inner
        if isinstance(node, ast.Binary):
            try:
                return _COMPARE[node.op](self.value(node.left), self.value(node.right))
            except (TypeError, ArithmeticError) as error:
                raise MergecError(Diagnostic("E0216", str(error).lower(), (Label(node.span),))) from None
        if isinstance(node, ast.Call) and isinstance(node.function, ast.Name):
            places = [a.value for a in node.arguments]
            if node.function.id == "tied" and len(places) == 2:
                first, second = (self._names(p) for p in places)
                ties = self.elaboration.ties
                return bool(first) and {ties.get(n, n) for n in first} == {ties.get(n, n) for n in second}
            if node.function.id == "shape" and len(places) == 1:
                names = self._names(places[0])
                shapes = {o.shape for o in self.elaboration.graph.outputs if o.name in names}
                if len(shapes) == 1:
                    shape = shapes.pop()
                    self.seen[node.span.text] = list(shape)
                    return shape
        raise MergecError(
            Diagnostic(
                "E0208",
                "an expectation is about `params`, `tensors`, `tied(…)`, `shape(…)`, numbers and names of numbers",
                (Label(node.span, "not known while compiling"),),
            )
        )

    def _names(self, node: ast.Expr) -> set[str]:
        return set(self.elaboration.space.select(place_path(node)).names)
