"""Evaluates a recipe's statements: lets, defs, output settings and assignments, to terms.

Errors are collected, one a statement; a name whose own statement failed is poison and causes no further errors.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..grammar import ast
from ..grammar.diagnostic import Diagnostic, Exit, Label, MergecError, Severity
from ..grammar.source import Span
from .builtins import BUILTINS, Builtin, as_region, lift, resolve, varies
from .calls import REQUIRED, Given, Parameter, check_kind, kind_of, match
from .catalog import Catalog, CatalogError, MemoryCatalog
from .library import Library
from .models import Model, bind
from .places import GlobStep, IndexStep, Interval, NameStep, Path
from .terms import (
    Choice,
    Function,
    Leaf,
    Namespace,
    PlaceMap,
    Poison,
    Scope,
    Stack,
    Tie,
    Token,
    Union,
    Vary,
    Where,
    at,
    is_region,
    named,
    picks,
)

PLACE_WORDS = frozenset({"layers", "embed", "head", "norm", "encoder", "decoder", "text", "vision", "layer", "depth"})
"""Names that a `let` or `def` can't take: they are places, or numbers that vary over the output."""

MAX_CALLS = 100_000
"""Calls of defs and comprehension elements in one recipe; more is a runaway expansion, not a merge."""


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """`path = value`, number `number` in file order."""

    number: int
    path: Path
    value: Any
    statement: ast.Assign


@dataclass(slots=True, eq=False)
class Recipe:
    """What the statements of a recipe come to."""

    models: list[Model] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)
    settings: dict[str, Given] = field(default_factory=dict)
    output_span: Span | None = None
    expects: list[ast.Expect] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    libraries: list[tuple[str, str]] = field(default_factory=list)
    scope: Scope = field(default_factory=lambda: Scope({}))


class _Cascade(Exception):
    """The statement uses a name that has its own error."""


def evaluate(
    module: ast.Module, catalog: Catalog, library: Library, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Runs through a recipe's statements in order.

    `overrides` (`-D name=value`) replaces the values of lets that are numbers, strings or booleans.
    """
    return _Evaluator(catalog, library, dict(overrides or {})).recipe(module)


class _Evaluator:
    def __init__(self, catalog: Catalog, library: Library, overrides: dict[str, Any]) -> None:
        self.catalog, self.library, self.overrides = catalog, library, overrides
        self.result = Recipe()
        self.checkpoints: dict[tuple[str, str | None, str], int] = {}
        self.active: list[str] = []
        self.origin: Span | None = None
        self.calls = 0
        self.root = Scope({})
        self.near = ""
        self.failed_input = False

    # --- statements

    def recipe(self, module: ast.Module) -> Recipe:
        self.near = module.source.name
        self._defs(module, self.root, library=False)
        for statement in module.statements:
            self._guard(statement, lambda s=statement: self._statement(s))
        self._check_defs(module)
        for name, value in self.overrides.items():
            self.result.diagnostics.append(Diagnostic("E0201", f"`-D {name}={value}`: the recipe has no `let {name}`"))
        self.result.scope = self.root
        return self.result

    def _check_defs(self, module: ast.Module) -> None:
        """Unknown names in the bodies of defs, whether they are called or not."""
        for statement in module.statements:
            if not isinstance(statement, ast.Def):
                continue
            inner = Scope({p.name.id: None for p in statement.parameters}, self.root)
            inner.values.update((s.name.id, None) for s in statement.body.statements if isinstance(s, ast.Let))
            bound, free = bound_and_free(statement.body)
            inner.values.update((name, None) for name in bound)
            known = {*BUILTINS, *self.library.names, *_SPECIAL, "layer", "depth"}
            reported = {d.labels[0].span for d in self.result.diagnostics if d.labels}
            for name in free:
                if name.id not in known and not inner.find(name.id)[0] and name.span not in reported:
                    self.result.diagnostics.extend(self._unknown(name, inner).diagnostics)

    def _guard(self, statement: ast.Statement, run: Callable[[], None]) -> None:
        try:
            run()
            return
        except MergecError as error:
            self.result.diagnostics.extend(error.diagnostics)
        except CatalogError as error:
            self.result.diagnostics.append(catalog_diagnostic(error, statement.span))
        except _Cascade:
            pass
        except RecursionError:
            self.result.diagnostics.append(
                Diagnostic("E0211", "this expression is nested too deeply", (Label(statement.span),))
            )
        if isinstance(statement, ast.Let):
            self.root.values.setdefault(statement.name.id, Poison())

    def _defs(self, module: ast.Module, scope: Scope, *, library: bool) -> None:
        """Defs are known in the whole file, whatever the order."""
        for statement in module.statements:
            if isinstance(statement, ast.Def):
                try:
                    self._declare(statement.name, scope)
                    scope.values[statement.name.id] = Function(statement, scope, library)
                except MergecError as error:
                    self.result.diagnostics.extend(error.diagnostics)
        found = cycles(module)
        if found:
            self.result.diagnostics.extend(found)
            for statement in module.statements:
                if isinstance(statement, ast.Def):
                    scope.values[statement.name.id] = Poison()

    def _declare(self, name: ast.Name, scope: Scope) -> None:
        if name.id in PLACE_WORDS:
            raise MergecError(
                Diagnostic(
                    "E0213",
                    f"`{name.id}` {'varies over the layers' if name.id in ('layer', 'depth') else 'is the name of a place'} "
                    "and can't be bound",
                    (Label(name.span, "choose another name"),),
                )
            )
        if name.id in scope.values:
            raise MergecError(
                Diagnostic("E0206", f"`{name.id}` is bound twice", (Label(name.span, "a name is never rebound"),))
            )

    def _statement(self, statement: ast.Statement) -> None:
        if isinstance(statement, ast.Let):
            self._let(statement, self.root, top=True)
        elif isinstance(statement, ast.Use):
            self._use(statement, self.root)
        elif isinstance(statement, ast.Output):
            self._output(statement)
        elif isinstance(statement, ast.Assign):
            path = self.path(statement.place, self.root)
            self.result.paths.append(path)
            value = self.value(statement.value, self.root)
            self.result.assignments.append(Assignment(len(self.result.assignments), path, value, statement))
        elif isinstance(statement, ast.Expect):
            self.result.expects.append(statement)

    def _let(self, statement: ast.Let, scope: Scope, *, top: bool) -> None:
        self._declare(statement.name, scope)
        name = statement.name.id
        call = statement.value
        if isinstance(call, ast.Call) and isinstance(call.function, ast.Name) and call.function.id == "model":
            value: Any = self._model(call, scope, name)
        else:
            value = self.value(call, scope)
        if top and name in self.overrides:
            replacement = self.overrides.pop(name)
            alike = any(isinstance(value, kind) and isinstance(replacement, kind) for kind in (bool, str, int | float))
            if not alike or isinstance(value, bool) != isinstance(replacement, bool):
                raise MergecError(
                    Diagnostic(
                        "E0208",
                        f"`-D {name}` can replace a number, a string or a boolean by one of the same kind",
                        (Label(statement.span, f"this is {kind_of(value)}"),),
                    )
                )
            value = replacement
        # a name inside a def would be the same for every call, and so the masks that it keys
        scope.values[name] = named(value, name) if top and is_region(value) else value

    def _use(self, statement: ast.Use, scope: Scope) -> None:
        inner = self._library_scope(statement.path.value, self.near, statement.span, ())
        if statement.alias is not None:
            self._declare(statement.alias, scope)
            scope.values[statement.alias.id] = Namespace(inner, statement.alias.id)
            return
        for name, value in inner.values.items():
            if name in scope.values:
                raise MergecError(
                    Diagnostic(
                        "E0206",
                        f"`{name}` of `{statement.path.value}` is already bound here",
                        (Label(statement.span),),
                        help=(f'give it a prefix: `use "{statement.path.value}" as lib`',),
                    )
                )
            scope.values[name] = value

    def _library_scope(self, path: str, near: str, span: Span, chain: tuple[str, ...]) -> Scope:
        resolved, text = self.catalog.library(path, near=near)
        if resolved in chain:
            shown = " -> ".join(f"`{c}`" for c in (*chain[chain.index(resolved) :], resolved))
            raise MergecError(Diagnostic("E0212", f"files use each other in a circle: {shown}", (Label(span),)))
        module = self.library.parse(resolved, text)
        if (resolved, text) not in self.result.libraries:
            self.result.libraries.append((resolved, text))
        scope = Scope({})
        self._defs(module, scope, library=True)
        for statement in module.statements:
            if isinstance(statement, ast.Let):
                self._let(statement, scope, top=False)
            elif isinstance(statement, ast.Use):
                inner = self._library_scope(statement.path.value, resolved, statement.span, (*chain, resolved))
                if statement.alias is not None:
                    scope.values[statement.alias.id] = Namespace(inner, statement.alias.id)
                else:
                    scope.values.update(inner.values)
            elif not isinstance(statement, ast.Def):
                raise MergecError(
                    Diagnostic(
                        "E0221",
                        "a file that is used holds only `let`, `def` and `use`",
                        (Label(statement.span, "not allowed in a library"),),
                    )
                )
        return scope

    def _output(self, statement: ast.Output) -> None:
        if self.result.output_span is not None:
            raise MergecError(Diagnostic("E0215", "`output` is given twice", (Label(statement.keyword, "again here"),)))
        self.result.output_span = statement.keyword
        for argument in statement.arguments:
            if argument.name is None:
                raise MergecError(
                    Diagnostic("E0205", "settings of the output are written `key=value`", (Label(argument.span),))
                )
            if argument.name in self.result.settings:
                labels = (
                    Label(argument.span, "again here"),
                    Label(self.result.settings[argument.name].where, "first here"),
                )
                raise MergecError(Diagnostic("E0205", f"`{argument.name}` is given twice", labels))
            scope = Scope({"zero": "zero"}, self.root) if argument.name == "tokens" else self.root
            value = self.value(argument.value, scope)
            self.result.settings[argument.name] = Given(argument.name, value, argument.value.span, _key(argument))

    # --- places

    def path(self, place: ast.Expr, scope: Scope) -> Path:
        """A place expression with its indices evaluated. Raises MergecError (E0108) for what is no place."""
        if isinstance(place, ast.Star):
            return Path((), place.span)
        steps: list[NameStep | IndexStep | GlobStep] = []
        node = place
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

    # --- expressions

    def span(self, node: ast.Expr) -> Span:
        """Where to point: into the recipe, not into a library that it calls."""
        return self.origin or node.span

    def value(self, node: ast.Expr, scope: Scope) -> Any:
        handler = _HANDLERS.get(type(node))
        assert handler is not None, node
        return handler(self, node, scope)

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
                raise _Cascade
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
        raise self._unknown(node, scope)

    def _unknown(self, node: ast.Name, scope: Scope) -> MergecError:
        names = {*BUILTINS, *self.library.names, "model", "stack", "tie", "union", "token", "layer", "depth"}
        inner: Scope | None = scope
        while inner is not None:
            names |= set(inner.values)
            inner = inner.outer
        near = difflib.get_close_matches(node.id, sorted(names), 2, 0.6)
        help_: tuple[str, ...] = (f"did you mean {' or '.join(f'`{n}`' for n in near)}?",) if near else ()
        if node.id in PLACE_WORDS:
            help_ = (f"`{node.id}` is a place: say of which model, as in `base.{node.id}`",)
        return MergecError(
            Diagnostic("E0201", f"no `{node.id}` is known here", (Label(node.span, "unknown name"),), help=help_)
        )

    def _list(self, node: ast.ListExpr, scope: Scope) -> Any:
        return tuple([self.value(item, scope) for item in node.items])

    def _map(self, node: ast.MapExpr, scope: Scope) -> Any:
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
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        op, function = _BINARY[node.op]
        plain = bool | str | None
        if node.op in ("==", "!=") and (
            isinstance(left, plain) or isinstance(right, plain) or isinstance(left, tuple) or isinstance(right, tuple)
        ):
            if varies(left) or varies(right):
                return Vary(
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
            return Vary(
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
            self._count(node)
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

    def _count(self, node: ast.Expr) -> None:
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise MergecError(
                Diagnostic("E0219", f"the recipe expands to more than {MAX_CALLS} calls", (Label(self.span(node)),))
            )

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
            special = _SPECIAL.get(node.function.id)
            if special is not None:
                return special(self, node, scope)
        function = self.value(node.function, scope)
        given = self.arguments(node, scope)
        return self.call(function, given, node)

    def arguments(self, node: ast.Call, scope: Scope) -> list[Given]:
        out: list[Given] = []
        for argument in node.arguments:
            value = self.value(argument.value, scope)
            if argument.splat:
                if not isinstance(value, tuple):
                    raise MergecError(
                        Diagnostic(
                            "E0208", f"`*` spreads a list, not {kind_of(value)}", (Label(argument.span, "not a list"),)
                        )
                    )
                span = self._argument_span(argument, scope)
                out.extend(Given(None, v, span) for v in value)
            else:
                key = _key(argument) if self.origin is None else None
                out.append(Given(argument.name, value, self._argument_span(argument, scope), key))
        return out

    def _argument_span(self, argument: ast.Argument, scope: Scope) -> Span:
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
            return self._apply(function, given, node, span)
        raise MergecError(
            Diagnostic(
                "E0208", f"{kind_of(function)} can't be called", (Label(self.span(node.function), "not a function"),)
            )
        )

    def _apply(self, function: Function, given: list[Given], node: ast.Call, span: Span) -> Any:
        self._count(node)
        name = function.name
        parameters = [_parameter(p) for p in function.definition.parameters]
        bound = match(name, parameters, given, span)
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
                    checked = (check_kind(name, parameter, v, s) for v, s in zip(value, parts, strict=True))
                    scope.values[parameter.name] = tuple(checked)
                else:
                    scope.values[parameter.name] = check_kind(name, parameter, value, where)
                scope.spans[parameter.name] = where
            checks: list[Vary] = []
            for statement in function.definition.body.statements:
                if isinstance(statement, ast.Let):
                    self._let(statement, scope, top=False)
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
            raise _Cascade
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

    # --- special forms

    def _model(self, node: ast.Call, scope: Scope, label: str | None) -> Leaf:
        given = match("model", _MODEL, self.arguments(node, scope), node.span)
        values = {k: g.value for k, g in given.items()}
        for p in _MODEL:
            if p.name in given:
                check_kind("model", p, given[p.name].value, given[p.name].span)
        source: str = values["source"]
        try:
            checkpoint = self.catalog.open(
                source, revision=values.get("revision"), subfolder=values.get("subfolder"), near=self.near
            )
        except CatalogError as error:
            self.failed_input = self.failed_input or not error.missing
            raise MergecError(
                catalog_diagnostic(error, given["source"].span), Exit.RECIPE if error.missing else Exit.INPUT
            ) from None
        rename = None
        if isinstance(values.get("rename"), PlaceMap):
            rename = {key: str(value) for _, key, value in values["rename"].entries}
        key = (checkpoint.location, checkpoint.revision, repr(rename))
        number = self.checkpoints.setdefault(key, len(self.checkpoints))
        try:
            model, warnings = bind(
                self.catalog,
                checkpoint,
                number=number,
                label=label or source.rstrip("/").rsplit("/", 1)[-1],
                source=source,
                rename=rename,
                span=given["source"].span,
            )
        except CatalogError as error:
            where = given["rename" if error.code == "E0438" else "source"].span
            raise MergecError(catalog_diagnostic(error, where), Exit.RECIPE if error.missing else Exit.INPUT) from None
        self.result.models.append(model)
        self.result.diagnostics.extend(warnings)
        return Leaf(model, None, node.span)

    def _special_model(self, node: ast.Call, scope: Scope) -> Any:
        return self._model(node, scope, None)

    def _tie(self, node: ast.Call, scope: Scope) -> Any:
        if len(node.arguments) != 1 or node.arguments[0].name or node.arguments[0].splat:
            raise MergecError(Diagnostic("E0204", "`tie` takes one place of the output", (Label(node.span),)))
        return Tie(self.path(node.arguments[0].value, scope), node.span)

    def _stack(self, node: ast.Call, scope: Scope) -> Any:
        parts, counts = [], []
        for given in self.arguments(node, scope):
            if given.name is not None or not is_region(given.value):
                raise MergecError(
                    Diagnostic(
                        "E0208", f"`stack` takes layers, not {kind_of(given.value)}", (Label(given.span, "no layers"),)
                    )
                )
            picked, bare = picks(given.value)
            selections = [model.space.select(path) for model, path in picked]
            found = {len(selection.indices) for selection in selections if selection.stack}
            if bare or not found:
                shown = bare[0].label if bare else "it"
                raise MergecError(
                    Diagnostic(
                        "E0305",
                        "each part of a `stack` says which layers it takes",
                        (Label(given.span, f"`{shown}` has no layers picked here"),),
                        help=(f"for instance `{shown}.layers[*]`",),
                    )
                )
            if len(found) > 1:
                raise MergecError(
                    Diagnostic(
                        "E0305",
                        f"this part combines {' and '.join(str(n) for n in sorted(found))} layers",
                        (Label(given.span, "counts differ"),),
                    )
                )
            parts.append(given.value)
            counts.append(found.pop())
        if not parts:
            raise MergecError(Diagnostic("E0204", "`stack` needs at least one part", (Label(node.span),)))
        return Stack(tuple(parts), tuple(counts), node.span)

    def _union(self, node: ast.Call, scope: Scope) -> Any:
        models = []
        for given in self.arguments(node, scope):
            if not isinstance(given.value, Leaf) or given.value.path is not None:
                raise MergecError(Diagnostic("E0208", "`union` takes models", (Label(given.span, "not a model"),)))
            models.append(given.value.model)
        return Union(tuple(models), node.span)

    def _token(self, node: ast.Call, scope: Scope) -> Any:
        given = match(
            "token", (Parameter("model"), Parameter("text", kind="string")), self.arguments(node, scope), node.span
        )
        model = given["model"].value
        if not isinstance(model, Leaf) or model.path is not None:
            raise MergecError(Diagnostic("E0208", "`token` takes a model and a token", (Label(given["model"].span),)))
        return Token(model.model, given["text"].value, node.span)


_MODEL = (
    Parameter("source", kind="string"),
    Parameter("revision", None, kind="string"),
    Parameter("subfolder", None, kind="string"),
    Parameter("rename", None),
)


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


def _key(argument: ast.Argument) -> Span | None:
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


def catalog_diagnostic(error: CatalogError, span: Span) -> Diagnostic:
    """A catalog's complaint with the place in the recipe that asked for the file."""
    return Diagnostic(
        error.code, error.message, (Label(span, "asked for here"),), error.notes, error.help, Severity.ERROR, error.file
    )


def cycles(module: ast.Module) -> list[Diagnostic]:
    """Defs that call themselves, directly or through others."""
    defs = {s.name.id: s for s in module.statements if isinstance(s, ast.Def)}
    calls = {name: [n for n in names_in(d.body) if n.id in defs] for name, d in defs.items()}
    done: set[str] = set()
    found: list[Diagnostic] = []
    for start in defs:
        stack: list[tuple[str, int]] = [(start, 0)]
        trail = [start]
        while stack and start not in done:
            name, k = stack.pop()
            if k < len(calls[name]):
                stack.append((name, k + 1))
                callee = calls[name][k]
                if callee.id in trail:
                    shown = " -> ".join(f"`{c}`" for c in [*trail[trail.index(callee.id) :], callee.id])
                    found.append(
                        Diagnostic(
                            "E0207", f"a def can't call itself: {shown}", (Label(callee.span, "closes the circle"),)
                        )
                    )
                    done.update(trail)
                    break
                if callee.id not in done:
                    stack.append((callee.id, 0))
                    trail.append(callee.id)
            else:
                done.add(name)
                trail.pop()
    return found


def bound_and_free(body: ast.Block) -> tuple[set[str], list[ast.Name]]:
    """Names that comprehensions bind, and names that stand for values, in a def's body; places are left out."""
    bound: set[str] = set()
    free: list[ast.Name] = []
    todo: list[Any] = [body]
    while todo:
        item = todo.pop()
        if isinstance(item, ast.Name):
            free.append(item)
        elif isinstance(item, ast.Comprehension):
            bound.update(t.id for t in item.targets)
            todo.extend((item.element, item.iterable))
        elif isinstance(item, ast.MapEntry) or isinstance(item, ast.Let):
            todo.append(item.value)
        elif isinstance(item, ast.Call) and isinstance(item.function, ast.Name) and item.function.id == "tie":
            continue
        elif isinstance(item, tuple):
            todo.extend(item)
        elif hasattr(item, "__dataclass_fields__") and not isinstance(item, Span):
            todo.extend(getattr(item, f) for f in item.__dataclass_fields__ if f != "span")
    return bound, free


def names_in(node: Any) -> list[ast.Name]:
    """All `Name` nodes below a syntax node."""
    out: list[ast.Name] = []
    todo = [node]
    while todo:
        item = todo.pop()
        if isinstance(item, ast.Name):
            out.append(item)
        elif isinstance(item, tuple):
            todo.extend(item)
        elif hasattr(item, "__dataclass_fields__") and not isinstance(item, Span):
            todo.extend(getattr(item, f) for f in item.__dataclass_fields__ if f != "span")
    return out


_BINARY: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "+": ("add", lambda a, b: a + b),
    "-": ("sub", lambda a, b: a - b),
    "*": ("mul", lambda a, b: a * b),
    "/": ("div", lambda a, b: a / b),
    "**": ("pow", lambda a, b: a**b),
    "<": ("lt", lambda a, b: a < b),
    "<=": ("le", lambda a, b: a <= b),
    ">": ("gt", lambda a, b: a > b),
    ">=": ("ge", lambda a, b: a >= b),
    "==": ("eq", lambda a, b: a == b),
    "!=": ("ne", lambda a, b: a != b),
    "and": ("and", lambda a, b: bool(a and b)),
    "or": ("or", lambda a, b: bool(a or b)),
}

_SPECIAL: dict[str, Callable[[_Evaluator, ast.Call, Scope], Any]] = {
    "model": _Evaluator._special_model,
    "tie": _Evaluator._tie,
    "stack": _Evaluator._stack,
    "union": _Evaluator._union,
    "token": _Evaluator._token,
}

_HANDLERS: dict[type, Callable[..., Any]] = {
    ast.Number: _Evaluator._literal,
    ast.String: _Evaluator._literal,
    ast.Boolean: _Evaluator._literal,
    ast.NoneLiteral: _Evaluator._none,
    ast.Star: _Evaluator._star,
    ast.Name: _Evaluator._name,
    ast.ListExpr: _Evaluator._list,
    ast.MapExpr: _Evaluator._map,
    ast.Unary: _Evaluator._unary,
    ast.Binary: _Evaluator._binary,
    ast.Conditional: _Evaluator._conditional,
    ast.Comprehension: _Evaluator._comprehension,
    ast.Member: _Evaluator._access,
    ast.Index: _Evaluator._access,
    ast.Call: _Evaluator._call,
}


def place_path(place: ast.Expr) -> Path:
    """A place whose indices are plain numbers, such as the argument of `tied(…)`. Raises MergecError."""
    return _Evaluator(MemoryCatalog({}), Library(), {}).path(place, Scope({}))
