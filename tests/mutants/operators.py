"""The mutants of a module: small changes of its syntax tree, each of which some test ought to
notice.

What nobody could notice, or what no test should hold, isn't changed: docstrings, annotations,
decorators, `__repr__`, assertions, and the wording of errors and warnings (all that is inside a
call that is given a code such as "E0203", and all that an exception is made of).
"""

from __future__ import annotations

import ast
import copy
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

CODE = re.compile(r"[EW]\d{4}")

WIDTH = 100
"""Characters of a long expression that a description has."""

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}

ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitOr,
}

OTHER_FUNCTION = {"min": "max", "max": "min", "any": "all", "all": "any"}

IN_ANY_ORDER = {"sorted": "list", "reversed": "list"}

NOT_TOLD_APART = {"strict", "errors", "encoding"}
"""Keyword arguments that are there for safety: a change of them shows in no test of what is
right."""

SKIPPED_FUNCTIONS = {"__repr__", "__str__"}


@dataclass
class Mutant:
    """One change of a module. `apply` makes it, in the tree that it was drawn from."""

    module: str
    function: str
    kind: str
    line: int
    """Of the statement that is changed, from 1."""
    before: str
    after: str
    apply: Callable[[], object] = field(repr=False)
    always: bool = False
    """Whether the place is reached when the module is imported, and by no test of its own."""
    repeat: int = 0
    """How many changes that read the same come before it in the function."""

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.module.rpartition('.')[0]}.{self.name}"

    @property
    def name(self) -> str:
        """The same without the package: it survives a move of the module, and edits elsewhere in
        the function."""
        again = f" #{self.repeat + 1}" if self.repeat else ""
        return f"{self.module.rpartition('.')[2]}:{self.function}: {self.change}{again}"

    @property
    def change(self) -> str:
        """Both texts; where they are long, what is about the first difference."""
        same = sum(1 for _ in itertools.takewhile(lambda ab: ab[0] == ab[1], zip(self.before, self.after)))
        return " -> ".join(_window(text, same) for text in (self.before, self.after))


def mutants(tree: ast.Module, module: str) -> list[Mutant]:
    """All mutants of a module in the order of its text."""
    found = list(_Drawer(module).of_module(tree))
    seen: dict[str, int] = {}
    for mutant in found:
        key = mutant.key
        mutant.repeat = seen.get(key, 0)
        seen[key] = mutant.repeat + 1
    return found


def mutated(source: str, module: str, index: int) -> ast.Module:
    """The tree of a module with the change of that index made."""
    tree = ast.parse(source)
    mutants(tree, module)[index].apply()
    return ast.fix_missing_locations(tree)


class _Drawer:
    """Walks statements; of each it yields changes of itself and of the expressions in it."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._scope: list[str] = []
        self._importing = [True]

    def of_module(self, tree: ast.Module) -> Iterator[Mutant]:
        yield from self._body(tree.body)

    # Statements

    def _body(self, body: list[ast.stmt]) -> Iterator[Mutant]:
        for k, statement in enumerate(body):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue  # a docstring, of an attribute too
            yield from self._statement(body, k)

    def _statement(self, body: list[ast.stmt], k: int) -> Iterator[Mutant]:
        s = body[k]
        if isinstance(s, ast.Import | ast.ImportFrom | ast.Assert | ast.Global | ast.Nonlocal | ast.Pass):
            return
        if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from self._function(s)
            return
        if isinstance(s, ast.ClassDef):
            self._scope.append(s.name)
            yield from self._body(s.body)
            self._scope.pop()
            return
        if _is_type_alias(s, self._importing[-1]):
            return
        yield from self._removals(body, k)
        yield from self._conditions(s)
        for name, value in ast.iter_fields(s):
            if name in ("annotation", "targets", "target", "body", "orelse", "finalbody", "handlers", "cases"):
                continue
            if isinstance(s, ast.Raise):
                continue  # removed at most: how an error is made is wording
            yield from self._fields(s, name, value, s)
        for name in ("body", "orelse", "finalbody"):
            yield from self._body(getattr(s, name, []))
        for part in [*getattr(s, "handlers", []), *getattr(s, "cases", [])]:
            guard = getattr(part, "guard", None)
            if guard is not None:
                yield from self._replaced(part, "guard", ast.Constant(True), s, "condition dropped")
                yield from self._fields(part, "guard", guard, s)
            yield from self._body(part.body)

    def _function(self, f: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Mutant]:
        if f.name in SKIPPED_FUNCTIONS or any(_name(d) == "overload" for d in f.decorator_list):
            return
        self._scope.append(f.name)
        yield from self._fields(f.args, "defaults", f.args.defaults, f)
        yield from self._fields(f.args, "kw_defaults", f.args.kw_defaults, f)
        # what is kept for the process runs in the first test that needs it
        self._importing.append(any("cache" in (_name(d) or "") for d in f.decorator_list))
        yield from self._body(f.body)
        self._importing.pop()
        self._scope.pop()

    def _removals(self, body: list[ast.stmt], k: int) -> Iterator[Mutant]:
        s = body[k]
        gone: ast.stmt | None = None
        stored = isinstance(s, ast.Assign) and any(not isinstance(t, ast.Name | ast.Tuple) for t in s.targets)
        if stored or isinstance(s, ast.Expr | ast.Delete | ast.AugAssign):
            gone = ast.Pass()
        elif isinstance(s, ast.Raise):
            made = s.exc.func if isinstance(s.exc, ast.Call) else s.exc
            if _name(made) not in ("AssertionError", "NotImplementedError"):
                gone = ast.Pass()
        elif isinstance(s, ast.Return) and s.value is not None:
            if not (isinstance(s.value, ast.Constant) and not s.value.value):
                gone = ast.Return(ast.Constant(None))
        elif isinstance(s, ast.Break):
            gone = ast.Continue()
        elif isinstance(s, ast.Continue):
            gone = ast.Break()
        if gone is not None:
            ast.copy_location(gone, s)
            if isinstance(gone, ast.Return):
                ast.copy_location(gone.value, s)  # type: ignore[type-var]
            yield self._mutant("removed", s, _text(s), _text(gone), lambda: body.__setitem__(k, gone))

    def _conditions(self, s: ast.stmt) -> Iterator[Mutant]:
        if isinstance(s, ast.If):
            for value in (True, False):
                yield from self._replaced(s, "test", ast.Constant(value), s, "condition dropped")
        elif isinstance(s, ast.While) and not isinstance(s.test, ast.Constant):
            yield from self._replaced(s, "test", ast.Constant(False), s, "condition dropped")

    # Expressions

    def _fields(self, node: ast.AST, name: str, value: object, s: ast.stmt) -> Iterator[Mutant]:
        """Changes of what a field of a node holds, and of all below."""
        if isinstance(value, ast.expr):
            for kind, new in _changes(value):
                yield from self._replaced(node, name, new, s, kind)
            yield from self._below(value, s)
        elif isinstance(value, list):
            for k, one in enumerate(value):
                if isinstance(one, ast.expr):
                    for kind, new in _changes(one):
                        yield self._item(kind, s, one, new, value, k)
                    yield from self._below(one, s)
                elif isinstance(one, ast.AST):
                    yield from self._below(one, s)
        elif isinstance(value, ast.AST):
            yield from self._below(value, s)

    def _below(self, node: ast.AST, s: ast.stmt) -> Iterator[Mutant]:
        if isinstance(node, ast.Call) and _is_wording(node):
            return
        if isinstance(node, ast.keyword) and node.arg in NOT_TOLD_APART:
            return
        if isinstance(node, ast.comprehension):
            for k, condition in enumerate(node.ifs):
                yield self._item("condition dropped", s, condition, ast.Constant(True), node.ifs, k)
        for name, value in ast.iter_fields(node):
            if isinstance(node, ast.JoinedStr) and name == "values":
                yield from self._fields(node, name, [v for v in value if isinstance(v, ast.FormattedValue)], s)
            elif name not in ("annotation", "format_spec", "ctx", "op", "ops", "args" * isinstance(node, ast.Lambda)):
                yield from self._fields(node, name, value, s)

    def _replaced(self, node: ast.AST, name: str, new: ast.expr, s: ast.stmt, kind: str) -> Iterator[Mutant]:
        old = getattr(node, name)
        ast.copy_location(new, old)
        yield self._mutant(kind, s, _text(old), _text(new), lambda: setattr(node, name, new))

    def _item(self, kind: str, s: ast.stmt, old: ast.expr, new: ast.expr, items: list[ast.expr], k: int) -> Mutant:
        ast.copy_location(new, old)
        return self._mutant(kind, s, _text(old), _text(new), lambda: items.__setitem__(k, new))

    def _mutant(self, kind: str, s: ast.stmt, before: str, after: str, apply: Callable[[], object]) -> Mutant:
        function = ".".join(self._scope) or "<module>"
        return Mutant(self._module, function, kind, s.lineno, before, after, apply, self._importing[-1])


def _changes(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """What may stand in place of an expression: all of one change."""
    if isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.Compare):
        for k, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                new = _copy(node)
                new.ops[k] = other()
                yield "comparison", new
    elif isinstance(node, ast.BoolOp):
        new = _copy(node)
        new.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", new
        for k in range(len(node.values)):
            rest = [copy.deepcopy(v) for j, v in enumerate(node.values) if j != k]
            yield "operand dropped", rest[0] if len(rest) == 1 else ast.BoolOp(_copy(node).op, rest)
    elif isinstance(node, ast.UnaryOp):
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            yield "operator dropped", copy.deepcopy(node.operand)
    elif isinstance(node, ast.BinOp):
        if not _is_text(node):
            new = _copy(node)
            new.op = ARITHMETIC.get(type(node.op), ast.Add)()
            yield "arithmetic", new
    elif isinstance(node, ast.IfExp):
        yield "condition dropped", copy.deepcopy(node.body)
        yield "condition dropped", copy.deepcopy(node.orelse)
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        yield "slice dropped", copy.deepcopy(node.value)
    elif isinstance(node, ast.Call):
        yield from _calls(node)


def _constants(value: object) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(value, bool):
        yield "constant", ast.Constant(not value)
    elif isinstance(value, int):
        yield "boundary", ast.Constant(value + 1)
        yield "boundary", ast.Constant(value - 1)
    elif isinstance(value, float):
        yield "constant", ast.Constant(value + 1.0)
    elif isinstance(value, str):
        yield "constant", ast.Constant(value + "?")


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    if _is_wording(node):
        return
    name = _name(node.func)
    a = node.args
    if len(a) >= 2 and not any(isinstance(x, ast.Starred) for x in a[:2]) and _text(a[0]) != _text(a[1]):
        if name not in ("isinstance", "issubclass", "getattr", "setattr", "hasattr", "cast", "min", "max"):
            new = _copy(node)
            new.args[:2] = new.args[1::-1]
            yield "arguments swapped", new
        if isinstance(node.func, ast.Attribute) and name == "get" and len(a) == 2:
            new = _copy(node)
            del new.args[1]
            yield "default dropped", new
    if isinstance(node.func, ast.Name) and node.func.id in OTHER_FUNCTION | IN_ANY_ORDER:
        new = _copy(node)
        new.func = ast.copy_location(ast.Name((OTHER_FUNCTION | IN_ANY_ORDER)[node.func.id], ast.Load()), node)
        if node.func.id in IN_ANY_ORDER:
            new.keywords = []
        yield "function", new
    for k, word in enumerate(node.keywords):
        if word.arg in ("key", "reverse", "default"):
            new = _copy(node)
            del new.keywords[k]
            yield "keyword dropped", new


def _is_wording(call: ast.Call) -> bool:
    """Whether a call makes an error or a warning, or a part of one."""
    codes = any(isinstance(a, ast.Constant) and isinstance(a.value, str) and CODE.fullmatch(a.value) for a in call.args)
    name = _name(call.func) or ""
    return codes or name in ("Label", "Diagnostic", "TypeVar") or name.endswith("Error")


def _is_type_alias(s: ast.stmt, importing: bool) -> bool:
    """`X = A | B`, `X = Callable[…]`, `__all__ = …` and the like, at the top of a module."""
    if not importing or not isinstance(s, ast.Assign | ast.AnnAssign) or s.value is None:
        return False
    target = s.targets[0] if isinstance(s, ast.Assign) else s.target
    if isinstance(target, ast.Name) and target.id in ("__all__", "__slots__"):
        return True
    value = s.value
    while isinstance(value, ast.BinOp):
        value = value.left
    if isinstance(value, ast.Subscript):
        return isinstance(value.value, ast.Name)
    name = value.id if isinstance(value, ast.Name) and isinstance(s.value, ast.BinOp) else ""
    return name[:1].isupper() and not name.isupper()


def _is_text(node: ast.BinOp) -> bool:
    """Whether one side of a sum is text: the difference is a TypeError, and nothing is learned from
    it."""
    return isinstance(node.op, ast.Add | ast.Mod) and any(
        isinstance(x, ast.JoinedStr) or (isinstance(x, ast.Constant) and isinstance(x.value, str | bytes))
        for x in (node.left, node.right)
    )


def _name(node: ast.expr | None) -> str | None:
    if isinstance(node, ast.Call):
        return _name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def _copy(node: Any) -> Any:
    return copy.deepcopy(node)


def _window(text: str, at: int) -> str:
    start = max(at - WIDTH // 2, 0) if len(text) > WIDTH else 0
    return "…" * (start > 0) + text[start : start + WIDTH] + "…" * (len(text) > start + WIDTH)


def _text(node: ast.AST) -> str:
    text = ast.unparse(node)
    return " ".join(text.split())
