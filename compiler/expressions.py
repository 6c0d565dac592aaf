"""Evaluates expressions to numbers, lists, functions and terms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..grammar import ast
from ..grammar.diagnostic import Diagnostic, Label, MergecError
from ..grammar.source import Span
from .assembly import assemble, is_assembly
from .budget import Budget
from .builtins import BUILTINS, Builtin, as_region, lift, once, power, resolve, varies
from .calls import REQUIRED, Given, Parameter, check_kind, kind_of, match
from .dtypes import NAMES as DTYPE_NAMES
from .library import Library
from .near import near
from .places import GlobStep, IndexStep, Interval, NameStep, Path
from .presence import may_lack
from .primitives import PrimitiveError
from .terms import (
    Among,
    Choice,
    Function,
    Leaf,
    Namespace,
    PlaceMap,
    Poison,
    Present,
    Scope,
    Stack,
    Tie,
    Vary,
    Where,
    at,
    is_region,
)

PLACE_WORDS = frozenset({"layers", "embed", "head", "norm", "encoder", "decoder", "text", "vision", "layer", "depth"})
"""Names that a `let` or `def` can't take: they are places, or numbers that vary over the output."""


def too_deep(span: Span) -> Diagnostic:
    """The error (E0211) for what would exhaust the interpreter's stack."""
    return Diagnostic("E0211", "this expression is nested too deeply", (Label(span),))


class Cascade(Exception):
    """The expression uses a name that has its own error."""


class Expressions:
    """Evaluates expressions of one recipe.

    `forms` are calls whose arguments are not plain values (`tie(embed)`) or that need the world (`model(…)`); `root`
    is the recipe's own scope, in which a def's `base` is looked up. `advice` gathers warnings, also later, when
    numbers that vary are resolved.
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
        self.active: list[str] = []
        self.origin: Span | None = None
        self.optional: dict[int, frozenset[str]] = {}

    def span(self, node: ast.Expr) -> Span:
        """Where to point: into the recipe, not into a library that it calls."""
        return self.origin or node.span

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
        raise MergecError(Diagnostic("E0108", "`*` is a place, not a value", (Label(node.span),)))

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
        except PrimitiveError as error:
            raise MergecError(
                Diagnostic(
                    "E0439", f"the primitive `{node.id}` can't be used", (Label(self.span(node)),), (str(error),)
                )
            ) from None
        if primitive is not None:
            return primitive
        raise self.unknown(node, scope)

    def unknown(self, node: ast.Name, scope: Scope) -> MergecError:
        names = {*BUILTINS, *self.library.names, *self.library.primitives, *self.forms, "layer", "depth"}
        inner: Scope | None = scope
        while inner is not None:
            names |= set(inner.values)
            inner = inner.outer
        likely = near(node.id, sorted(names), 2)
        help_: tuple[str, ...] = (f"did you mean {' or '.join(f'`{n}`' for n in likely)}?",) if likely else ()
        if node.id in PLACE_WORDS:
            help_ = (f"`{node.id}` is a place: say of which model, as in `base.{node.id}`",)
        if node.id in DTYPE_NAMES:
            help_ = (f'a dtype is a string: `"{node.id}"`',)
        return MergecError(
            Diagnostic("E0201", f"no `{node.id}` is known here", (Label(node.span, "unknown name"),), help=help_)
        )

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
        operands = (node.left.span, node.right.span) if self.origin is None else ()
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
            raise MergecError(
                Diagnostic(
                    "E0218",
                    "this condition depends on the weights, which are not known while compiling",
                    (Label(self.span(node.condition), "a region"),),
                    help=("choose element by element: `where(condition, then, other)`",),
                )
            )
        raise MergecError(
            Diagnostic(
                "E0208",
                f"a condition is true or false, not {kind_of(condition)}",
                (Label(self.span(node.condition), f"this is {kind_of(condition)}"),),
            )
        )

    def _comprehension(self, node: ast.Comprehension, scope: Scope) -> Any:
        items = self.value(node.iterable, scope)
        if not isinstance(items, tuple):
            raise MergecError(
                Diagnostic(
                    "E0208",
                    f"`for` goes over a list, not {kind_of(items)}",
                    (Label(self.span(node.iterable), "not a list"),),
                )
            )
        out = []
        for item in items:
            self.budget.call(self.span(node))
            values = (item,) if len(node.targets) == 1 else item
            if not isinstance(values, tuple) or len(values) != len(node.targets):
                raise MergecError(
                    Diagnostic(
                        "E0210",
                        f"{len(node.targets)} names for {len(values) if isinstance(values, tuple) else 1} values",
                        (Label(node.targets[0].span),),
                    )
                )
            inner = Scope({t.id: v for t, v in zip(node.targets, values, strict=True)}, scope)
            out.append(self.value(node.element, inner))
        return tuple(out)

    # --- places

    def path(self, place: ast.Expr, scope: Scope) -> Path:
        """A place expression with its indices evaluated. Raises MergecError (E0108) for what is no place."""
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
                raise MergecError(Diagnostic("E0108", "this is not a place", (Label(node.span),)))
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
                return IndexStep((), selector.span)
            if isinstance(selector, ast.Item):
                n = self._whole(selector.value, scope)
                intervals.append(Interval(n, n, 1, True, selector.span))
            else:
                start = None if selector.start is None else self._whole(selector.start, scope)
                stop = None if selector.stop is None else self._whole(selector.stop, scope)
                step = 1 if selector.step is None else self._whole(selector.step, scope)
                if step < 1:
                    raise MergecError(
                        Diagnostic("E0303", "a step is 1 or more", (Label(selector.span, f"this goes by {step}"),))
                    )
                intervals.append(Interval(start, stop, step, False, selector.span))
        return IndexStep(tuple(intervals), node.span)

    def _whole(self, node: ast.Expr, scope: Scope) -> int:
        value = self.value(node, scope)
        if isinstance(value, bool) or not isinstance(value, int):
            shown = f"{value:g}" if isinstance(value, float) else kind_of(value)
            raise MergecError(
                Diagnostic(
                    "E0208",
                    f"an index is a whole number, not {shown}",
                    (Label(node.span, "a layer's number is needed"),),
                )
            )
        return value

    # --- members and indices

    def _access(self, node: ast.Member | ast.Index, scope: Scope) -> Any:
        chain: list[ast.Member | ast.Index] = []
        inner: ast.Expr = node
        while isinstance(inner, ast.Member | ast.Index):
            chain.append(inner)
            inner = inner.object
        value = self.value(inner, scope)
        steps: list[NameStep | IndexStep | GlobStep] = []
        for part in reversed(chain):
            if is_region(value):
                steps.append(self._step(part, scope))
            elif isinstance(value, Namespace) and isinstance(part, ast.Member):
                if part.name not in value.scope.values:
                    known = ", ".join(f"`{n}`" for n in value.scope.values)
                    raise MergecError(
                        Diagnostic(
                            "E0201",
                            f"`{value.name}` has no `{part.name}`",
                            (Label(_tail(part), "unknown name"),),
                            notes=(f"it has {known}",) if known else (),
                        )
                    )
                value = value.scope.values[part.name]
            elif isinstance(value, tuple) and isinstance(part, ast.Index):
                value = self._item(value, part, scope)
            else:
                raise MergecError(
                    Diagnostic("E0208", f"{kind_of(value)} has no parts", (Label(part.span, "not a region"),))
                )
        if not steps:
            return value
        path = Path(tuple(steps), node.span)
        region = at(value, path, self.span(node))
        if isinstance(region, Leaf) and region.path is not None:
            region.model.space.select(region.path)
        return region

    def _item(self, value: tuple[Any, ...], node: ast.Index, scope: Scope) -> Any:
        selector = node.selectors[0]
        if len(node.selectors) != 1 or not isinstance(selector, ast.Item):
            raise MergecError(Diagnostic("E0208", "a list takes a single index", (Label(node.span),)))
        n = self._whole(selector.value, scope)
        if not -len(value) <= n < len(value):
            raise MergecError(
                Diagnostic(
                    "E0303",
                    f"index {n} is out of range of a list of {len(value)}",
                    (Label(selector.span, f"not in 0..{len(value) - 1}"),),
                )
            )
        return value[n]

    # --- calls

    def _call(self, node: ast.Call, scope: Scope) -> Any:
        if isinstance(node.function, ast.Name) and not scope.find(node.function.id)[0]:
            special = self.forms.get(node.function.id)
            if special is not None:
                return special(self, node, scope)
        function = self.value(node.function, scope)
        given = self.arguments(node, scope)
        return self.call(function, given, node)

    def arguments(self, node: ast.Call, scope: Scope) -> list[Given]:
        out: list[Given] = []
        for argument in node.arguments:
            value = self.value(argument.value, scope)
            if isinstance(value, tuple | PlaceMap):
                self.budget.handed(value, self.span(argument.value))
            if argument.splat:
                if not isinstance(value, tuple):
                    raise MergecError(
                        Diagnostic(
                            "E0208", f"`*` spreads a list, not {kind_of(value)}", (Label(argument.span, "not a list"),)
                        )
                    )
                span = self.argument_span(argument, scope)
                out.extend(Given(None, v, span) for v in value)
            else:
                key = key_span(argument) if self.origin is None else None
                out.append(Given(argument.name, value, self.argument_span(argument, scope), key))
        return out

    def argument_span(self, argument: ast.Argument, scope: Scope) -> Span:
        """Where to point for an argument; inside a library, where the recipe gave the parameter that it is."""
        if self.origin is None:
            return argument.span if argument.splat else argument.value.span
        node = argument.value
        return (scope.span_of(node.id) if isinstance(node, ast.Name) else None) or self.origin

    def call(self, function: Any, given: list[Given], node: ast.Call) -> Any:
        span = self.span(node)
        if isinstance(function, Builtin):
            if self.origin is not None and given:
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
            return self._apply(function, given, span)
        raise MergecError(
            Diagnostic(
                "E0208", f"{kind_of(function)} can't be called", (Label(self.span(node.function), "not a function"),)
            )
        )

    def _apply(self, function: Function, given: list[Given], span: Span) -> Any:
        self.budget.call(span)
        parameters = [_parameter(p) for p in function.definition.parameters]
        bound = match(function.name, parameters, given, span)
        value = self._expand(function, parameters, bound, span)
        several = next((p.name for p in parameters if p.variadic and p.kind == "region"), None)
        models = bound[several].value if several in bound else ()
        if several is None or not is_region(value) or isinstance(value, Stack | Tie):
            return value
        if len(models) < 2 or not may_lack(models, self.optional):
            return value
        origin = self.origin

        def again(present: tuple[int, ...]) -> Any:
            before, self.origin = self.origin, origin
            try:
                return self._expand(function, parameters, _fewer(parameters, bound, several, present), span)
            finally:
                self.origin = before

        return Among(value, models, again, function.name, span)

    def _expand(self, function: Function, parameters: Sequence[Parameter], bound: dict[str, Given], span: Span) -> Any:
        """A def's value for arguments that are matched to its parameters."""
        name = function.name
        scope = Scope({}, function.scope)
        outer_origin = self.origin
        if function.library and self.origin is None:
            self.origin = span
        self.active.append(name)
        try:
            for declared, parameter in zip(function.definition.parameters, parameters, strict=True):
                if parameter.name in bound:
                    value = bound[parameter.name].value
                    where = bound[parameter.name].span
                elif parameter.variadic:
                    value, where = (), span
                elif declared.default is not None:
                    value, where = self.value(declared.default, scope), span
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
                    self.let(statement, scope)
                else:
                    checks.extend(self.expect(statement, scope, span))
            return _checked(self.value(function.definition.body.result, scope), checks, span)
        except MergecError as error:
            raise (_inside(error, name, span) if function.library and outer_origin is None else error) from None
        finally:
            self.active.pop()
            self.origin = outer_origin

    def _base(self, function: str, span: Span) -> Any:
        """A parameter `base` that is not given is the recipe's model of that name."""
        value = self.root.values.get("base")
        if isinstance(value, Poison):
            raise Cascade
        if value is None or not is_region(value):
            raise MergecError(
                Diagnostic(
                    "E0217",
                    f"`{function}` needs a base, and the recipe has no model named `base`",
                    (Label(span, "no base"),),
                    help=("pass one: `base=…`", 'or name one: `let base = model("…")`'),
                )
            )
        return value

    def expect(self, statement: ast.Expect, scope: Scope, span: Span) -> list[Vary]:
        """An `expect` inside a def, checked now; where it varies over the output, the check to make at each tensor."""
        condition = self.value(statement.condition, scope)
        message = statement.message.value if statement.message else "an expectation does not hold"
        if is_region(condition):
            raise MergecError(
                Diagnostic(
                    "E0218",
                    "this expectation depends on the weights, which are not known while compiling",
                    (Label(self.span(statement.condition), "a region"),),
                )
            )
        failure = Diagnostic("E0214", message, (Label(span, "here"),))
        if varies(condition):

            def holds(where: Where) -> bool:
                if resolve(condition, where) is not True:
                    raise MergecError(dataclasses.replace(failure, notes=(f"at `{where.output}`",)))
                return True

            return [Vary(holds, span, statement.condition.span.text)]
        if condition is not True:
            raise MergecError(failure)
        return []

    # --- names

    def declare(self, name: ast.Name, scope: Scope) -> None:
        """Sees that a name may be bound. Raises MergecError (E0213, E0206)."""
        if name.id in PLACE_WORDS:
            what = "varies over the layers" if name.id in ("layer", "depth") else "is the name of a place"
            raise MergecError(
                Diagnostic(
                    "E0213",
                    f"`{name.id}` {what} and can't be bound",
                    (Label(name.span, "choose another name"),),
                )
            )
        if name.id in scope.values:
            raise MergecError(
                Diagnostic("E0206", f"`{name.id}` is bound twice", (Label(name.span, "a name is never rebound"),))
            )

    def let(self, statement: ast.Let, scope: Scope) -> None:
        """Binds a name inside a def or a library."""
        self.declare(statement.name, scope)
        # no label: a name inside a def would be the same for every call, and so the masks that it keys
        scope.values[statement.name.id] = self.value(statement.value, scope)


Form = Callable[[Expressions, ast.Call, Scope], Any]
"""A call that is evaluated its own way."""


def _parameter(declared: ast.Parameter) -> Parameter:
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


def _inside(error: MergecError, function: str, span: Span) -> MergecError:
    """The error with a word on where it arose, if it can only point at the call of a library function."""
    return MergecError(
        [
            dataclasses.replace(d, notes=(*d.notes, f"inside `{function}`"))
            if d.code in ("E0208", "E0216") and d.labels and d.labels[0].span == span
            else d
            for d in error.diagnostics
        ],
        error.exit,
    )


def _tail(node: ast.Member) -> Span:
    """The span of a member's name."""
    tail = Span(node.span.source, node.object.span.end, node.span.end)
    offset = len(tail.text) - len(tail.text.lstrip(". \t\n"))
    return Span(tail.source, tail.start + offset, tail.end)


def key_span(argument: ast.Argument) -> Span | None:
    """The span of an argument's name."""
    if argument.name is None:
        return None
    return Span(argument.span.source, argument.span.start, argument.span.start + len(argument.name))


def _layer(where: Any) -> int:
    if where.layer is not None:
        return int(where.layer)
    return 0 if where.depth == 0 else where.layers - 1


def _checked(value: Any, checks: list[Vary], span: Span) -> Any:
    """A value that makes the checks wherever it is asked for a tensor."""
    for check in checks:
        if is_region(value) and not isinstance(value, Stack | Tie):
            value = Choice(check, value, value, span, value.label)
    return value


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
    ast.Member: Expressions._access,
    ast.Index: Expressions._access,
    ast.Call: Expressions._call,
}


def place_path(place: ast.Expr) -> Path:
    """A place whose indices are plain numbers. Raises MergecError."""
    return Expressions(Library(), {}, Scope({})).path(place, Scope({}))
