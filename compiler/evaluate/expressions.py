"""Evaluates expressions to numbers, lists, functions and terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...grammar import ast
from ...grammar.diagnostic import Diagnostic, error, finding
from ...grammar.source import Span
from ..family.place import Path
from ..terms.assembly import assemble, is_assembly
from ..terms.kinds import kind_of
from ..terms.lifting import as_region, lift, power
from ..terms.terms import Choice, PlaceMap, Vary, is_region
from ..terms.varying import once, resolve, varies
from .access import Access
from .bindings import Cascade, unknown
from .budget import Budget
from .builtins import BUILTINS, Builtin
from .calls import Given, check_kind, match
from .extensions import PrimitiveError
from .functions import Functions
from .scopes import Function, Poison, Scope
from .standard_library import Library


def too_deep(span: Span) -> Diagnostic:
    """The error (E0211) for what would exhaust the interpreter's stack."""
    return finding("E0211", "this expression is nested too deeply", span)


class Expressions:
    """Evaluates expressions of one recipe.

    `forms` are calls whose arguments are not plain values (`tie(embed)`) or that need the world
    (`model(…)`); `root` is the recipe's own scope, in which a def's `base` is looked up. `advice`
    gathers warnings, also later, when numbers that vary are resolved.
    """

    def __init__(
        self,
        library: Library,
        forms: Mapping[str, Form],
        root: Scope,
        advice: list[Diagnostic] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.library, self.forms, self.root = library, forms, root
        self.advice: list[Diagnostic] = [] if advice is None else advice
        self.budget = budget or Budget()
        self._functions = Functions(self.value, root, self.budget)
        self._access = Access(self.value, self.span)

    def span(self, node: ast.Expr) -> Span:
        """Where to point: into the recipe, not into a library that it calls."""
        return self._functions.origin or node.span

    def known(self) -> set[str]:
        """The names that are known without being bound in the recipe."""
        return {*BUILTINS, *self.library.names, *self.library.primitives, *self.forms}

    def value(self, node: ast.Expr, scope: Scope) -> Any:
        handler = _HANDLERS.get(type(node))
        assert handler is not None, node
        self.budget.step(node.span)
        value = handler(self, node, scope)
        if isinstance(value, tuple | PlaceMap):
            self.budget.made(value, self.span(node))
        return value

    def _literal(self, node: ast.Number | ast.String | ast.Boolean, scope: Scope) -> Any:  # noqa: ARG002
        return node.value

    def _none(self, node: ast.NoneLiteral, scope: Scope) -> Any:  # noqa: ARG002
        return None

    def _star(self, node: ast.Star, scope: Scope) -> Any:  # noqa: ARG002
        raise error("E0108", "`*` is a place, not a value", node.span)

    def _name(self, node: ast.Name, scope: Scope) -> Any:
        known, value = scope.find(node.id)
        if known:
            if isinstance(value, Poison):
                raise Cascade
            return value
        if node.id == "depth":
            return Vary(lambda where: where.depth, self.span(node), "depth")
        if node.id == "layer":
            return Vary(_layer, self.span(node), "layer")
        if node.id in BUILTINS:
            return BUILTINS[node.id]
        found = self.library.function(node.id)
        if found is not None:
            return found
        try:
            primitive = self.library.primitive(node.id)
        except PrimitiveError as broken:
            raise error(
                "E0439", f"the primitive `{node.id}` can't be used", self.span(node), notes=str(broken)
            ) from None
        if primitive is not None:
            return primitive
        raise unknown(node, scope, self.known())

    def _list(self, node: ast.ListExpr, scope: Scope) -> Any:
        return tuple([self.value(item, scope) for item in node.items])

    def _map(self, node: ast.MapExpr, scope: Scope) -> Any:
        found = self.setting(node, scope)
        return assemble(found.entries, found.span) if is_assembly(found.entries) else found

    def setting(self, node: ast.MapExpr, scope: Scope) -> PlaceMap:
        """A map as it stands: for settings of the output, whose values may be models."""
        entries: list[tuple[Path | None, str, Any]] = []
        for entry in node.entries:
            value = self.value(entry.value, scope)
            if isinstance(entry.key, ast.Name) and entry.key.id == "_":
                entries.append((None, "_", value))
            elif isinstance(entry.key, ast.String):
                entries.append((self.path(entry.key, scope), entry.key.value, value))
            else:
                path = self.path(entry.key, scope)
                entries.append((path, path.text, value))
        return PlaceMap(tuple(entries), self.span(node))

    def _unary(self, node: ast.Unary, scope: Scope) -> Any:
        value = self.value(node.operand, scope)
        if node.op == "not":
            return self._not(value, node)
        if node.op == "+":
            return value
        return lift("neg", lambda a: -a, (value,), self.span(node), "-")

    def _not(self, value: Any, node: ast.Expr) -> Any:
        if isinstance(value, bool):
            return not value
        return lift("not", lambda a: not a, (value,), self.span(node), "not")

    def _binary(self, node: ast.Binary, scope: Scope) -> Any:
        left = self.value(node.left, scope)
        if isinstance(left, bool) and node.op in ("and", "or") and left == (node.op == "or"):
            return left  # the right side need not make sense: `task == none or task < 3`
        right = self.value(node.right, scope)
        op, function = _BINARY[node.op]
        plain = bool | str | None
        if node.op in ("==", "!=") and (
            isinstance(left, plain) or isinstance(right, plain) or isinstance(left, tuple) or isinstance(right, tuple)
        ):
            for value in (left, right):
                if isinstance(value, tuple):
                    self.budget.handed(value, self.span(node))
            if varies(left) or varies(right):
                return once(
                    lambda where: function(resolve(left, where), resolve(right, where)), self.span(node), node.span.text
                )
            return function(left, right)
        if node.op == "+" and isinstance(left, tuple) and isinstance(right, tuple):
            return left + right
        operands = (node.left.span, node.right.span) if self._functions.origin is None else ()
        return lift(op, function, (left, right), self.span(node), node.op, operands)

    def _conditional(self, node: ast.Conditional, scope: Scope) -> Any:
        condition = self.value(node.condition, scope)
        if isinstance(condition, bool):
            return self.value(node.then if condition else node.other, scope)
        if varies(condition):
            then, other = self.value(node.then, scope), self.value(node.other, scope)
            if is_region(then) or is_region(other):
                from_ = self.span(node)
                return Choice(condition, as_region(then, from_), as_region(other, from_), from_)
            return once(
                lambda where: resolve(then if resolve(condition, where) else other, where),
                self.span(node),
                node.span.text,
            )
        if is_region(condition):
            raise error(
                "E0218",
                "this condition depends on the weights, which are not known while compiling",
                self.span(node.condition),
                "a region",
                help="choose element by element: `where(condition, then, other)`",
            )
        raise error(
            "E0208",
            f"a condition is true or false, not {kind_of(condition)}",
            self.span(node.condition),
            f"this is {kind_of(condition)}",
        )

    def _comprehension(self, node: ast.Comprehension, scope: Scope) -> Any:
        items = self.value(node.iterable, scope)
        if not isinstance(items, tuple):
            raise error(
                "E0208", f"`for` goes over a list, not {kind_of(items)}", self.span(node.iterable), "not a list"
            )
        out = []
        for item in items:
            self.budget.call(self.span(node))
            values = (item,) if len(node.targets) == 1 else item
            if not isinstance(values, tuple) or len(values) != len(node.targets):
                raise error(
                    "E0210",
                    f"{len(node.targets)} names for {len(values) if isinstance(values, tuple) else 1} values",
                    node.targets[0].span,
                )
            inner = Scope({t.id: v for t, v in zip(node.targets, values, strict=True)}, scope)
            out.append(self.value(node.element, inner))
        return tuple(out)

    def _accessed(self, node: ast.Member | ast.Index, scope: Scope) -> Any:
        return self._access.of(node, scope)

    def path(self, place: ast.Expr, scope: Scope) -> Path:
        """A place expression with its indices evaluated. Raises MergecError (E0108) for what is no
        place."""
        return self._access.path(place, scope)

    # --- calls

    def _call(self, node: ast.Call, scope: Scope) -> Any:
        if isinstance(node.function, ast.Name) and not scope.find(node.function.id)[0]:
            special = self.forms.get(node.function.id)
            if special is not None:
                return special(self, node, scope)
        function = self.value(node.function, scope)
        given = self.arguments(node, scope)
        return self._apply(function, given, node)

    def arguments(self, node: ast.Call, scope: Scope) -> list[Given]:
        """The arguments of a call, lists spread."""
        out: list[Given] = []
        for argument in node.arguments:
            value = self.value(argument.value, scope)
            if isinstance(value, tuple | PlaceMap):
                self.budget.handed(value, self.span(argument.value))
            if argument.splat:
                if not isinstance(value, tuple):
                    raise error("E0208", f"`*` spreads a list, not {kind_of(value)}", argument.span, "not a list")
                span = self._argument_span(argument, scope)
                out.extend(Given(None, v, span) for v in value)
            else:
                key = key_span(argument) if self._functions.origin is None else None
                out.append(Given(argument.name, value, self._argument_span(argument, scope), key))
        return out

    def _argument_span(self, argument: ast.Argument, scope: Scope) -> Span:
        """Where to point for an argument; inside a library, where the recipe gave the parameter
        that it is."""
        if self._functions.origin is None:
            return argument.span if argument.splat else argument.value.span
        node = argument.value
        return (scope.span_of(node.id) if isinstance(node, ast.Name) else None) or self._functions.origin

    def _apply(self, function: Any, given: list[Given], node: ast.Call) -> Any:
        span = self.span(node)
        if isinstance(function, Builtin):
            if self._functions.origin is not None and given:
                span = given[0].span
            bound = match(function.name, function.parameters, given, span)
            values: dict[str, Any] = {}
            for p in function.parameters:
                if p.name in bound:
                    values[p.name] = check_kind(function.name, p, bound[p.name].value, bound[p.name].span)
                else:
                    values[p.name] = () if p.variadic else p.default
            return function.run(values, span)
        if isinstance(function, Function):
            return self._functions.apply(function, given, span)
        raise error("E0208", f"{kind_of(function)} can't be called", self.span(node.function), "not a function")


Form = Callable[[Expressions, ast.Call, Scope], Any]
"""A call that is evaluated its own way."""


def key_span(argument: ast.Argument) -> Span | None:
    """The span of an argument's name."""
    if argument.name is None:
        return None
    return Span(argument.span.source, argument.span.start, argument.span.start + len(argument.name))


def _layer(where: Any) -> int:
    if where.layer is not None:
        return int(where.layer)
    return 0 if where.depth == 0 else where.layers - 1


_BINARY: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "+": ("add", lambda a, b: a + b),
    "-": ("sub", lambda a, b: a - b),
    "*": ("mul", lambda a, b: a * b),
    "/": ("div", lambda a, b: a / b),
    "**": ("pow", power),
    "<": ("lt", lambda a, b: a < b),
    "<=": ("le", lambda a, b: a <= b),
    ">": ("gt", lambda a, b: a > b),
    ">=": ("ge", lambda a, b: a >= b),
    "==": ("eq", lambda a, b: a == b),
    "!=": ("ne", lambda a, b: a != b),
    "and": ("and", lambda a, b: bool(a and b)),
    "or": ("or", lambda a, b: bool(a or b)),
}

_HANDLERS: dict[type, Callable[..., Any]] = {
    ast.Number: Expressions._literal,
    ast.String: Expressions._literal,
    ast.Boolean: Expressions._literal,
    ast.NoneLiteral: Expressions._none,
    ast.Star: Expressions._star,
    ast.Name: Expressions._name,
    ast.ListExpr: Expressions._list,
    ast.MapExpr: Expressions._map,
    ast.Unary: Expressions._unary,
    ast.Binary: Expressions._binary,
    ast.Conditional: Expressions._conditional,
    ast.Comprehension: Expressions._comprehension,
    ast.Member: Expressions._accessed,
    ast.Index: Expressions._accessed,
    ast.Call: Expressions._call,
}


def place_path(place: ast.Expr) -> Path:
    """A place whose indices are plain numbers. Raises MergecError."""
    return Expressions(Library(), {}, Scope({})).path(place, Scope({}))
