"""Calls of a `def`: its value for arguments, and where to point for what goes wrong inside one of a
library."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...grammar import ast
from ...grammar.diagnostic import MergecError, error, finding
from ...grammar.source import Span
from ..terms.lookup import may_lack
from ..terms.terms import Among, Choice, Present, Stack, Tie, Vary, Where, is_region
from ..terms.varying import resolve, varies
from .bindings import Cascade, declare
from .budget import Budget
from .calls import REQUIRED, Given, Parameter, check_kind, match
from .scopes import Function, Poison, Scope


class Functions:
    """Applies the defs of a recipe and of the libraries that it uses.

    `value` evaluates an expression; `root` is the recipe's own scope, in which a def's `base` is
    looked up. `origin` is the call of a library's function that is being worked out, if one is:
    errors point there, not into the library.
    """

    def __init__(self, value: Callable[[ast.Expr, Scope], Any], root: Scope, budget: Budget) -> None:
        self._value, self._root, self._budget = value, root, budget
        self.origin: Span | None = None
        self._optional: dict[int, frozenset[str]] = {}

    def apply(self, function: Function, given: list[Given], span: Span) -> Any:
        """The value of a call, for which `span` stands. Raises MergecError."""
        self._budget.call(span)
        parameters = [_parameter(p) for p in function.definition.parameters]
        bound = match(function.name, parameters, given, span)
        value = self._expand(function, parameters, bound, span)
        several = next((p.name for p in parameters if p.variadic and p.kind == "region"), None)
        models = bound[several].value if several in bound else ()
        if several is None or not is_region(value) or isinstance(value, Stack | Tie):
            return value
        if not models or not may_lack((*models, *self._beside(parameters, bound)), self._optional):
            return value
        origin = self.origin

        def again(present: tuple[int, ...]) -> Any:
            before, self.origin = self.origin, origin
            try:
                return self._expand(function, parameters, _fewer(parameters, bound, several, present), span)
            finally:
                self.origin = before

        return Among(value, models, again, function.name, span)

    def _beside(self, parameters: Sequence[Parameter], bound: Mapping[str, Given]) -> list[Any]:
        """The regions that a call has beside its models, such as a base."""
        given = [bound[p.name].value for p in parameters if p.name in bound and not p.variadic]
        if any(p.name == "base" and p.name not in bound for p in parameters):
            given.append(self._root.values.get("base"))
        return [value for value in given if is_region(value)]

    def _expand(self, function: Function, parameters: Sequence[Parameter], bound: dict[str, Given], span: Span) -> Any:
        """A def's value for arguments that are matched to its parameters."""
        name = function.name
        scope = Scope({}, function.scope)
        outer_origin = self.origin
        if function.library and self.origin is None:
            self.origin = span
        try:
            for declared, parameter in zip(function.definition.parameters, parameters, strict=True):
                if parameter.name in bound:
                    value = bound[parameter.name].value
                    where = bound[parameter.name].span
                elif parameter.variadic:
                    value, where = (), span
                elif declared.default is not None:
                    value, where = self._value(declared.default, scope), span
                else:
                    value, where = self._base(name, span), span
                parts = bound[parameter.name].parts if parameter.name in bound else ()
                if parts:
                    one = dataclasses.replace(parameter, variadic=False)
                    checked = tuple([check_kind(name, one, v, s) for v, s in zip(value, parts, strict=True)])
                    fewer = isinstance(value, Present)
                    scope.values[parameter.name] = Present.of(checked, value.numbers, value.total) if fewer else checked
                else:
                    scope.values[parameter.name] = check_kind(name, parameter, value, where)
                scope.spans[parameter.name] = where
            checks: list[Vary] = []
            for statement in function.definition.body.statements:
                if isinstance(statement, ast.Let):
                    self._let(statement, scope)
                else:
                    checks.extend(self._expect(statement, scope, span))
            return _checked(self._value(function.definition.body.result, scope), checks, span)
        except MergecError as error:
            lists = [p.name for p in parameters if p.kind == "number" and _listed(scope.values.get(p.name))]
            given = {name: scope.spans[name] for name in lists}
            raise (_inside(error, name, span, given) if function.library and outer_origin is None else error) from None
        finally:
            self.origin = outer_origin

    def _base(self, function: str, span: Span) -> Any:
        """A parameter `base` that is not given is the recipe's model of that name."""
        value = self._root.values.get("base")
        if isinstance(value, Poison):
            raise Cascade
        if value is None or not is_region(value):
            raise error(
                "E0217",
                f"`{function}` needs a base, and the recipe has no model named `base`",
                span,
                "no base",
                help=("pass one: `base=…`", 'or name one: `let base = model("…")`'),
            )
        return value

    def _expect(self, statement: ast.Expect, scope: Scope, span: Span) -> list[Vary]:
        """An `expect` inside a def, checked now; where it varies over the output, the check to make
        at each tensor."""
        condition = self._value(statement.condition, scope)
        message = statement.message.value if statement.message else "an expectation does not hold"
        if is_region(condition):
            raise error(
                "E0218",
                "this expectation depends on the weights, which are not known while compiling",
                self.origin or statement.condition.span,
                "a region",
            )
        failure = finding("E0214", message, span, "here")
        if varies(condition):

            def holds(where: Where) -> bool:
                if resolve(condition, where) is not True:
                    raise MergecError(dataclasses.replace(failure, notes=(f"at `{where.output}`",)))
                return True

            return [Vary(holds, span, statement.condition.span.text)]
        if condition is not True:
            raise MergecError(failure)
        return []

    def _let(self, statement: ast.Let, scope: Scope) -> None:
        """Binds a name inside a def or a library."""
        declare(statement.name, scope)
        # no label: a name inside a def would be the same for every call, and so the masks that it
        # keys
        scope.values[statement.name.id] = self._value(statement.value, scope)


def _parameter(declared: ast.ParameterDeclaration) -> Parameter:
    kind = declared.kind
    return Parameter(
        declared.name.id,
        REQUIRED if declared.default is None else None,
        declared.variadic,
        kind.name if kind else None,
        kind.low if kind else None,
        kind.high if kind else None,
    )


def _fewer(
    parameters: Sequence[Parameter], bound: dict[str, Given], several: str, present: tuple[int, ...]
) -> dict[str, Given]:
    """The arguments for some of the models: these models, and their items of per-model options."""
    out = dict(bound)
    models = bound[several]
    total = len(models.value)
    taken = Present.of(tuple([models.value[i] for i in present]), present, total)
    out[several] = dataclasses.replace(models, value=taken, parts=tuple([models.parts[i] for i in present]))
    for parameter in parameters:
        given = out.get(parameter.name)
        if given is None or parameter.variadic or parameter.kind not in ("number", "integer", "boolean"):
            continue
        if isinstance(given.value, tuple) and len(given.value) == total:
            out[parameter.name] = dataclasses.replace(given, value=tuple([given.value[i] for i in present]))
    return out


def _listed(value: Any) -> bool:
    """Whether an argument is a list of plain numbers."""
    return isinstance(value, tuple) and bool(value) and all(type(v) in (int, float) for v in value)


def _inside(error: MergecError, function: str, span: Span, lists: Mapping[str, Span]) -> MergecError:
    """The error with a word on where it arose, if it can only point at the call of a library
    function. `lists` are numbers that are given as lists, each with its place."""
    out = []
    for d in error.diagnostics:
        if d.code in ("E0208", "E0216") and d.labels and d.labels[0].span == span:
            d = dataclasses.replace(d, notes=(*d.notes, f"inside `{function}`"))
            if len(lists) == 1 and d.labels[0].text == "a list here":
                ((parameter, where),) = lists.items()
                d = finding(
                    "E0208",
                    f"`{parameter}` of `{function}` is one number, not a list",
                    where,
                    "a list here",
                    help=f"a number that follows the depth of the layer: `{parameter}=curve({where.text})`",
                )
        out.append(d)
    return error.retold(out)


def _checked(value: Any, checks: list[Vary], span: Span) -> Any:
    """A value that makes the checks wherever it is asked for a tensor."""
    for check in checks:
        if is_region(value) and not isinstance(value, Stack | Tie):
            value = Choice(check, value, value, span, value.label)
    return value
