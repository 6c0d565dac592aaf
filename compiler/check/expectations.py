"""`expect` at the top of a recipe: facts about the output, checked once the graph is known."""

from __future__ import annotations

from typing import Any

from ...grammar import ast
from ...grammar.diagnostic import Diagnostic, MergecError, error, finding
from ..elaborate.elaborate import Elaboration
from ..evaluate.advise import advise
from ..evaluate.bindings import Cascade
from ..evaluate.expressions import Expressions, too_deep
from ..evaluate.scopes import Scope
from ..evaluate.standard_library import Library
from ..evaluate.statements import Recipe
from ..terms.terms import is_region
from ..terms.varying import varies


def check_expectations(recipe: Recipe, elaboration: Elaboration, library: Library, parameters: int) -> None:
    """Checks every `expect`. Raises MergecError (E0214) with all that do not hold.

    Besides what any expression can use, an expectation knows `params` (the output's parameters,
    ties counted once), `tensors` (how many are stored), `tied(place, place)` and `shape(place)`.
    """
    errors: list[Diagnostic] = []
    for expect in recipe.expects:
        facts = _Facts(recipe, elaboration, library, parameters)
        try:
            holds = facts.value(expect.condition)
        except MergecError as error:
            errors.extend(error.diagnostics)
        except Cascade:
            continue
        except RecursionError:
            errors.append(too_deep(expect.span))
        else:
            if holds is not True:
                message = expect.message.value if expect.message else "an expectation does not hold"
                notes = tuple(f"`{name}` is {value}" for name, value in facts.seen.items())
                errors.append(finding("E0214", message, expect.condition.span, "is false", notes=notes))
    if errors:
        raise MergecError(errors)


class _Facts:
    """What one expectation asks; `seen` collects the facts that it used, for the message."""

    def __init__(self, recipe: Recipe, elaboration: Elaboration, library: Library, parameters: int) -> None:
        self.elaboration = elaboration
        self.seen: dict[str, Any] = {}
        self.numbers = {"params": parameters, "tensors": len(elaboration.graph.outputs)}
        self.scope = Scope(dict(self.numbers), recipe.scope)
        forms = {"advise": advise, "tied": self._tied, "shape": self._shape}
        self.expressions = Expressions(library, forms, recipe.scope, recipe.advice, recipe.budget)

    def value(self, condition: ast.Expr) -> Any:
        value = self.expressions.value(condition, self.scope)
        if is_region(value) or varies(value):
            raise error(
                "E0208",
                "an expectation is about facts that are known while compiling",
                condition.span,
                "depends on the tensor or its weights",
                help="such as `params`, `tensors`, `tied(head, embed)`, `shape(embed)`",
            )
        for name, number in self.numbers.items():
            if name in condition.span.text:
                self.seen[name] = f"{number:_}"
        return value

    def _tied(self, expressions: Expressions, node: ast.Call, scope: Scope) -> bool:
        places = [self._names(expressions, a, scope) for a in node.arguments]
        if len(places) < 2:
            raise error("E0204", "`tied` takes two places", node.span, "fewer here")
        ties = self.elaboration.ties
        stored = [{ties.get(name, name) for name in names} for names in places]
        return all(s == stored[0] for s in stored)

    def _shape(self, expressions: Expressions, node: ast.Call, scope: Scope) -> tuple[int, ...]:
        if len(node.arguments) != 1:
            raise error("E0204", "`shape` takes one place", node.span, "not one here")
        names = self._names(expressions, node.arguments[0], scope)
        ties = self.elaboration.ties
        stored = {ties.get(name, name) for name in names}
        shapes = {o.shape for o in self.elaboration.graph.outputs if o.name in stored}
        if len(shapes) != 1:
            raise error("E0208", "these tensors have several shapes", node.span, "no single shape")
        shape = shapes.pop()
        self.seen[node.span.text] = list(shape)
        return shape

    def _names(self, expressions: Expressions, argument: ast.Argument, scope: Scope) -> set[str]:
        return set(self.elaboration.space.select(expressions.path(argument.value, scope)).names)
