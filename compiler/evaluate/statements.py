"""Evaluates a recipe's statements: lets, defs, output settings and assignments, to terms.

Errors are collected, one per statement; a name whose own statement failed is poison and causes no
further errors.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from ...grammar import ast
from ...grammar.diagnostic import Diagnostic, MergecError, collecting, error, finding
from ...grammar.records import dataclass
from ...grammar.source import Span
from ..checkpoint.adapter import Adapter
from ..checkpoint.catalog import Catalog, CatalogError
from ..checkpoint.documents import catalog_diagnostic
from ..checkpoint.model import Model
from ..family.place import Path
from ..terms.kinds import kind_of
from ..terms.map_keys import given_twice
from ..terms.terms import is_region, named
from .bindings import VARYING, Cascade, declare, unknown
from .budget import Budget
from .builtins import BUILTINS
from .calls import Given, check_declared
from .expressions import Expressions, key_span, too_deep
from .extensions import Primitive
from .forms import FORMS, Models
from .names import bound_and_free, cycles
from .scopes import Function, Namespace, Poison, Scope
from .standard_library import Library

MOST_ERRORS = 100
"""After so many a recipe is not looked at any further."""


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """`path = value`, number `number` in file order."""

    number: int
    path: Path
    value: Any
    statement: ast.Assign


@dataclass(slots=True, eq=False)
class Recipe:
    """What the statements of a recipe evaluate to.

    `advice` are warnings of methods; those about numbers that vary are added when tensors are asked
    for.
    """

    models: list[Model] = field(default_factory=list)
    adapters: list[Adapter] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)
    settings: dict[str, Given] = field(default_factory=dict)
    output_span: Span | None = None
    expects: list[ast.Expect] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    advice: list[Diagnostic] = field(default_factory=list)
    libraries: list[tuple[str, str]] = field(default_factory=list)
    primitives: tuple[Primitive, ...] = ()
    scope: Scope = field(default_factory=lambda: Scope({}))
    budget: Budget = field(default_factory=Budget)

    @property
    def inputs(self) -> list[Model]:
        """All that weights are read from: models and, in their guise, adapters."""
        return [*self.models, *(a.model for a in self.adapters)]


def evaluate(
    module: ast.Module, catalog: Catalog, library: Library, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Runs through a recipe's statements in order.

    `overrides` (`-D name=value`) replaces the values of lets that are numbers, strings or booleans.
    """
    return _Evaluator(catalog, library, dict(overrides or {}), module.source.name).recipe(module)


class _Evaluator:
    def __init__(self, catalog: Catalog, library: Library, overrides: dict[str, Any], near: str) -> None:
        self.catalog, self.library, self.overrides, self.near = catalog, library, overrides, near
        self.result = Recipe()
        self.root = self.result.scope
        self.models = Models(catalog, near)
        forms = {**FORMS, "model": self.models.form, "lora": self.models.lora}
        self.expressions = Expressions(library, forms, self.root, self.result.advice, self.result.budget)

    def recipe(self, module: ast.Module) -> Recipe:
        self._defs(module, self.root, library=False)
        for statement in module.statements:
            self._guard(statement)
            if len(self.result.diagnostics) > MOST_ERRORS or self.result.budget.spent:
                break
        self._check_defs(module)
        for name, value in self.overrides.items():
            self.result.diagnostics.append(finding("E0201", f"`-D {name}={value}`: the recipe has no `let {name}`"))
        self.result.models, self.result.adapters = self.models.opened, self.models.adapters
        self.result.primitives = tuple(self.library.used.values())
        self.result.diagnostics.extend(self.models.warnings)
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
            known = {*BUILTINS, *self.library.names, *self.expressions.forms, *VARYING}
            reported = {d.labels[0].span for d in self.result.diagnostics if d.labels}
            for name in free:
                if len(self.result.diagnostics) > MOST_ERRORS:
                    return
                if name.id in known or inner.find(name.id)[0] or name.span in reported:
                    continue
                # asked last, as it looks for installed packages
                if name.id not in self.library.primitives:
                    self.result.diagnostics.extend(unknown(name, inner, self.expressions.known()).diagnostics)

    def _guard(self, statement: ast.Statement) -> None:
        try:
            self._statement(statement)
            return
        except MergecError as error:
            self.result.diagnostics.extend(error.diagnostics)
        except CatalogError as error:
            self.result.diagnostics.append(catalog_diagnostic(error, statement.span))
        except Cascade:
            pass
        except RecursionError:
            self.result.diagnostics.append(too_deep(statement.span))
        if isinstance(statement, ast.Let):
            self.root.values.setdefault(statement.name.id, Poison())

    def _defs(self, module: ast.Module, scope: Scope, *, library: bool) -> None:
        """Defs are known in the whole file, whatever the order."""
        for statement in module.statements:
            if isinstance(statement, ast.Def):
                with collecting(self.result.diagnostics):
                    declare(statement.name, scope)
                    scope.values[statement.name.id] = Poison()
                    check_declared(statement.parameters)
                    scope.values[statement.name.id] = Function(statement, scope, library)
        found = cycles(module)
        if found:
            self.result.diagnostics.extend(found)
            for statement in module.statements:
                if isinstance(statement, ast.Def):
                    scope.values[statement.name.id] = Poison()

    def _statement(self, statement: ast.Statement) -> None:
        if isinstance(statement, ast.Let):
            self._let(statement, self.root, library=False)
        elif isinstance(statement, ast.Use):
            self._use(statement, self.root)
        elif isinstance(statement, ast.OutputStatement):
            self._output(statement)
        elif isinstance(statement, ast.Assign):
            path = self.expressions.path(statement.place, self.root)
            self.result.paths.append(path)
            value = self.expressions.value(statement.value, self.root)
            self.result.assignments.append(Assignment(len(self.result.assignments), path, value, statement))
        elif isinstance(statement, ast.Expect):
            self.result.expects.append(statement)

    def _let(self, statement: ast.Let, scope: Scope, *, library: bool) -> None:
        declare(statement.name, scope)
        name, call = statement.name.id, statement.value
        called = call.function.id if isinstance(call, ast.Call) and isinstance(call.function, ast.Name) else ""
        opens = {"model": self.models.open, "lora": self.models.adapter}.get(called)
        if isinstance(call, ast.Call) and opens is not None:
            value: Any = opens(self.expressions, call, scope, name)
        else:
            value = self.expressions.value(call, scope)
        if name in self.overrides and not library:
            value = self._override(statement, value, self.overrides.pop(name))
        scope.values[name] = named(value, name) if is_region(value) else value

    def _override(self, statement: ast.Let, value: Any, replacement: Any) -> Any:
        kinds: tuple[Any, ...] = (bool, str, int | float)
        same_kind = any(isinstance(value, kind) and isinstance(replacement, kind) for kind in kinds)
        if not same_kind or isinstance(value, bool) != isinstance(replacement, bool):
            name = statement.name.id
            raise error(
                "E0208",
                f"`-D {name}` can replace a number, a string or a boolean by one of the same kind",
                statement.value.span,
                f"this is {kind_of(value)}",
            )
        return replacement

    def _use(self, statement: ast.Use, scope: Scope) -> None:
        path = statement.path.value
        inner = self._library_scope(path, posixpath.normpath(path), self.near, statement.span, ())
        if statement.alias is not None:
            declare(statement.alias, scope)
            scope.values[statement.alias.id] = Namespace(inner, statement.alias.id)
            return
        for name, value in inner.values.items():
            if name in scope.values:
                raise error(
                    "E0206",
                    f"`{name}` of `{statement.path.value}` is already bound here",
                    statement.span,
                    help=f'give it a prefix: `use "{statement.path.value}" as lib`',
                )
            scope.values[name] = value

    def _library_scope(self, path: str, name: str, near: str, span: Span, chain: tuple[str, ...]) -> Scope:
        """What the library `path` binds, which is written relative to the file `near`; `name` is
        the same relative to the recipe, so that an output says nothing about the machine."""
        resolved, text = self.catalog.library(path, near=near)
        if resolved in chain:
            shown = " -> ".join(f"`{c}`" for c in (*chain[chain.index(resolved) :], resolved))
            raise error("E0212", f"files use each other in a circle: {shown}", span)
        module = self.library.parse(resolved, text)
        if (name, text) not in self.result.libraries:
            self.result.libraries.append((name, text))
        scope = Scope({})
        self._defs(module, scope, library=True)
        for statement in module.statements:
            if isinstance(statement, ast.Let):
                self._let(statement, scope, library=True)
            elif isinstance(statement, ast.Use):
                path = statement.path.value
                beside = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
                inner = self._library_scope(path, beside, resolved, statement.span, (*chain, resolved))
                if statement.alias is not None:
                    scope.values[statement.alias.id] = Namespace(inner, statement.alias.id)
                else:
                    scope.values.update(inner.values)
            elif not isinstance(statement, ast.Def):
                raise error(
                    "E0221",
                    "a file that is used holds only `let`, `def` and `use`",
                    statement.span,
                    "not allowed in a library",
                )
        return scope

    def _output(self, statement: ast.OutputStatement) -> None:
        if self.result.output_span is not None:
            raise error("E0215", "`output` is given twice", statement.keyword, "again here")
        self.result.output_span = statement.keyword
        for argument in statement.arguments:
            if argument.name is None:
                raise error("E0205", "settings of the output are written `key=value`", argument.span)
            if argument.name in self.result.settings:
                raise given_twice(argument.name, argument.span, self.result.settings[argument.name].where)
            scope = Scope({"zero": "zero"}, self.root) if argument.name == "tokens" else self.root
            given = argument.value
            plain = self.expressions.setting if isinstance(given, ast.MapExpr) else self.expressions.value
            value = plain(given, scope)  # type: ignore[arg-type]
            self.result.settings[argument.name] = Given(argument.name, value, argument.value.span, key_span(argument))
