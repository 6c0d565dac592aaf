"""What each expression of the merge language comes to at one tensor of the output, naively, from
docs/language.md.

It takes mergec's syntax tree and nothing else of mergec. An expression is evaluated anew for every
tensor of the output, so a number that varies is a plain number here, and a region is an array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import reference_methods
from mergec.grammar import ast
from reference_functions import FUNCTIONS, Region, Where
from reference_places import (
    EVERY,
    PREFIX,
    Checkpoint,
    Coordinate,
    Names,
    Refused,
    Step,
    Unjudged,
    names_of,
    part,
    select,
)


@dataclass(frozen=True, eq=False)
class Scope:
    """Names that are bound to an expression with the scope it was written in, to a value, or to a
    def."""

    bound: dict[str, Any]
    outer: Scope | None = None

    def find(self, name: str) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.bound:
                return scope.bound[name]
            scope = scope.outer
        return None


@dataclass(frozen=True, eq=False)
class Later:
    """An expression, evaluated wherever its name is used."""

    node: ast.Expr
    scope: Scope


class Evaluation:
    """Evaluates expressions. `root` has what the recipe binds. Of the tensor that is being made,
    `magnitude` is the largest number met, and `sure` whether it is certain which elements were
    picked."""

    def __init__(self) -> None:
        self.root = Scope({})
        self.magnitude = 0.0
        self.sure = True
        self._put_together: dict[tuple[int, int], tuple[ast.MapExpr, Scope, _Assembly]] = {}

    def met(self, value: Any) -> None:
        found = np.abs(np.asarray(value, dtype=np.float64))
        if found.size and np.isfinite(found.max()):
            self.magnitude = max(self.magnitude, float(found.max()))

    # --- what an expression is made of, told from its text

    def head(self, node: ast.Expr) -> str:
        return node.function.id if isinstance(node, ast.Call) and isinstance(node.function, ast.Name) else ""

    def models_in(self, node: object, scope: Scope) -> list[Checkpoint]:
        """The models that an expression is made of, in the order of the text."""
        out: list[Checkpoint] = []
        todo: list[tuple[object, Scope]] = [(node, scope)]
        while todo:
            item, within = todo.pop()
            if isinstance(item, ast.Name):
                found = within.find(item.id)
                if isinstance(found, Checkpoint):
                    out.append(found)
                elif isinstance(found, Later):
                    todo.append((found.node, found.scope))
                elif isinstance(found, ast.Def):
                    todo.append((found.body, self.root))
            elif isinstance(item, ast.MapEntry):
                todo.append((item.value, within))
            else:
                below = [(each, within) for each in _children(item)]
                if isinstance(item, ast.Call) and self.head(item) in BASED and "base" in self.root.bound:
                    below.append((ast.Name("base", item.span), self.root))
                todo.extend(reversed(below))
        return out

    def assemblies(self, node: ast.Expr, scope: Scope | None = None) -> list[_Assembly]:
        """The models put together from parts that an expression uses whole."""
        scope = scope or self.root
        if isinstance(node, ast.MapExpr):
            return [self._assembly(node, scope)] if self.models_in(node, scope) else []
        if isinstance(node, ast.Name):
            found = scope.find(node.id)
            return self.assemblies(found.node, found.scope) if isinstance(found, Later) else []
        if isinstance(node, ast.Member | ast.Index):
            return []
        return [a for each in _children(node) for a in self.assemblies(each, scope)]  # type: ignore[arg-type]

    def origins(self, node: ast.Expr, scope: Scope) -> list[tuple[Names, int]]:
        """The layers that a stack is made of: of each part the first that is picked."""
        assert isinstance(node, ast.Call)
        return [pair for a in node.arguments for pair in self._picked_layers(a.value, scope)]

    def _picked_layers(self, node: ast.Expr, scope: Scope) -> list[tuple[Names, int]]:
        found = self._first_pick(node, scope)
        if found is None:
            raise Refused("a part of a stack picks its layers")
        root, steps, within = found
        if isinstance(root, Checkpoint):
            return [(root.space, i) for i in select(steps, root.space).layers]
        if isinstance(root, ast.MapExpr):
            built = self._assembly(root, within)
            return [built.origins[i] for i in select(steps, built.space).layers]
        space = self._owner(root, within)
        return [(space, i) for i in select(steps, space).layers]

    def _first_pick(self, node: object, scope: Scope) -> tuple[Any, list[Step], Scope] | None:
        if isinstance(node, ast.Member | ast.Index) and not isinstance(_root(node), ast.ListExpr | ast.Comprehension):
            root, steps = self.chain(node, scope)
            if isinstance(root, ast.Name):
                found = scope.find(root.id)
                if isinstance(found, Checkpoint):
                    return found, steps, scope
                if isinstance(found, Later):
                    return (found.node, steps, found.scope)
            return root, steps, scope
        if isinstance(node, ast.Name):
            found = scope.find(node.id)
            return self._first_pick(found.node, found.scope) if isinstance(found, Later) else None
        for each in _children(node):
            found = self._first_pick(each, scope)
            if found is not None:
                return found
        return None

    def _owner(self, node: ast.Expr, scope: Scope) -> Names:
        """The names and layers of a virtual model: all models that it is made of must agree in
        them."""
        if isinstance(node, ast.MapExpr):
            return self._assembly(node, scope).space
        if self.assemblies(node, scope):
            raise Unjudged("a virtual model over one put together")
        if self._first_pick(node, scope) is not None:
            raise Unjudged("a place of an expression that has places")
        found = self.models_in(node, scope)
        if not found:
            raise Refused("no region")
        if len({(m.space.depth, frozenset(m.space.names)) for m in found}) > 1:
            raise Unjudged("a virtual model over unlike ones")
        return found[0].space

    # --- places

    def place(self, node: ast.Expr, scope: Scope) -> list[Step]:
        if isinstance(node, ast.Star):
            return []
        if isinstance(node, ast.String):
            return [("glob", node.value)]
        root, steps = self.chain(node, scope)
        if not isinstance(root, ast.Name):
            raise Unjudged("no place")
        return [root.id, *steps]

    def chain(self, node: ast.Expr, scope: Scope) -> tuple[ast.Expr, list[Step]]:
        steps: list[Step] = []
        while isinstance(node, ast.Member | ast.Index):
            if isinstance(node, ast.Index):
                steps.append(self._index(node, scope))
            elif node.glob:
                raise Unjudged("a glob below a place")
            else:
                steps.append(node.name)
            node = node.object
        return node, steps[::-1]

    def _index(self, node: ast.Index, scope: Scope) -> tuple[Any, ...]:
        out: list[tuple[int | None, int | None, int]] = []
        for s in node.selectors:
            if isinstance(s, ast.All):
                out.append((None, None, 1))
            elif isinstance(s, ast.Item):
                n = self._whole(s.value, scope)
                out.append((n, n, 1))
            else:
                ends = [None if e is None else self._whole(e, scope) for e in (s.start, s.stop)]
                out.append((ends[0], ends[1], 1 if s.step is None else self._whole(s.step, scope)))
        return EVERY if len(out) == 1 and isinstance(node.selectors[0], ast.All) else tuple(out)

    def _whole(self, node: ast.Expr, scope: Scope) -> int:
        """A number in an index is written out, or has a name."""
        if isinstance(node, ast.Unary) and node.op == "-":
            return -self._whole(node.operand, scope)
        if isinstance(node, ast.Number) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            found = scope.find(node.id)
            if isinstance(found, Later):
                value = self.value(found.node, found.scope, None)
                if isinstance(value, int) and not isinstance(value, bool):
                    return value
            elif isinstance(found, int) and not isinstance(found, bool):
                return found
        raise Refused("an index is a number")

    # --- expressions

    def region(self, value: Any, where: Where | None) -> Region:
        if isinstance(value, Region):
            return value
        if isinstance(value, Checkpoint):
            assert where is not None
            return self._stored(value, where.name, where)
        if isinstance(value, bool | int | float):
            return Region(float(value))
        raise Refused("no region")

    def _stored(self, model: Checkpoint, name: str | None, where: Where) -> Region:
        found = None if name is None else model.find(name)
        if found is not None:
            self.met(found)
            return Region(found)
        if where.name.endswith(".bias"):
            return Region(0.0, there=False)
        raise Refused(f"lacks {where.name}")

    def value(self, node: ast.Expr, scope: Scope, where: Where | None) -> Any:
        match node:
            case ast.Number() | ast.String() | ast.Boolean():
                return node.value
            case ast.NoneLiteral():
                return None
            case ast.Name():
                return self._name(node, scope, where)
            case ast.ListExpr():
                return tuple(self.value(each, scope, where) for each in node.items)
            case ast.Comprehension():
                return self._comprehension(node, scope, where)
            case ast.MapExpr():
                return self._map(node, scope, where)
            case ast.Conditional():
                condition = self.value(node.condition, scope, where)
                if not isinstance(condition, bool):
                    raise Refused("a condition is true or false")
                return self.value(node.then if condition else node.other, scope, where)
            case ast.Unary():
                value = self.value(node.operand, scope, where)
                if node.op == "not":
                    return not value if isinstance(value, bool) else self._truth(value, where)
                return self._apply("*", -1, value, where) if node.op == "-" else value
            case ast.Binary():
                return self._binary(node, scope, where)
            case ast.Call():
                return self._call(node, scope, where)
            case ast.Member() | ast.Index():
                return self._picked(node, scope, where)
        raise Unjudged(type(node).__name__)

    def _truth(self, value: Any, where: Where | None) -> Any:
        held = self.region(value, where)
        return Region((np.asarray(held.value) == 0).astype(float), held.there)

    def _name(self, node: ast.Name, scope: Scope, where: Where | None) -> Any:
        found = scope.find(node.id)
        if isinstance(found, Later):
            return self.value(found.node, found.scope, where)
        if found is not None:
            return found
        if node.id in ("depth", "layer"):
            if where is None:
                raise Refused("it varies")
            return where.depth if node.id == "depth" else where.layer
        if node.id in FUNCTIONS or node.id in METHODS:
            return node.id
        raise Refused(f"no {node.id}")

    def _comprehension(self, node: ast.Comprehension, scope: Scope, where: Where | None) -> tuple[Any, ...]:
        out = []
        for item in self.value(node.iterable, scope, where):
            values = (item,) if len(node.targets) == 1 else item
            inner = Scope({t.id: v for t, v in zip(node.targets, values, strict=True)}, scope)
            out.append(self.value(node.element, inner, where))
        return tuple(out)

    def _binary(self, node: ast.Binary, scope: Scope, where: Where | None) -> Any:
        left = self.value(node.left, scope, where)
        if isinstance(left, bool) and node.op in ("and", "or") and left == (node.op == "or"):
            return left
        right = self.value(node.right, scope, where)
        if node.op == "+" and isinstance(left, tuple) and isinstance(right, tuple):
            return left + right
        if node.op in ("==", "!=") and (isinstance(left, str | bool | None) or isinstance(right, str | bool | None)):
            return (left == right) == (node.op == "==")
        return self._apply(node.op, left, right, where)

    def _apply(self, op: str, left: Any, right: Any, where: Where | None) -> Any:
        if all(isinstance(v, bool | int | float) for v in (left, right)):
            try:
                result = OPERATORS[op](left, right)
            except (ZeroDivisionError, OverflowError, ValueError):
                raise Refused("no number") from None
            if isinstance(result, complex) or (isinstance(result, float) and not math.isfinite(result)):
                raise Refused("no real number")
            return bool(result) if op in ("<", "<=", ">", ">=", "==", "!=", "and", "or") else result
        one, other = self.region(left, where), self.region(right, where)
        if op == "/" and isinstance(right, int | float) and right == 0:
            raise Refused("divides by zero")
        there = any(r.there for r, v in ((one, left), (other, right)) if not isinstance(v, bool | int | float))
        if op in ("<", "<=", ">", ">=", "==", "!="):
            self._near(one.value, other.value)
        return Region(self._elementwise(OPERATORS[op], one.value, other.value), there)

    def _near(self, one: Any, other: Any) -> None:
        """Where two numbers are nearly equal, rounding decides which is larger."""
        one, other = np.asarray(one), np.asarray(other)
        if np.any(np.abs(one - other) <= 1e-4 * (np.abs(one) + np.abs(other))):
            self.sure = False

    def _elementwise(self, function: Callable[..., Any], *values: Any) -> Any:
        shapes = {np.shape(v) for v in values} - {()}
        if len(shapes) > 1:
            raise Refused("shapes differ")
        with np.errstate(all="ignore"):
            out = np.asarray(function(*(np.asarray(v, dtype=np.float64) for v in values)), dtype=np.float64)
        self.met(out)
        return out

    # --- place maps and models put together

    def _map(self, node: ast.MapExpr, scope: Scope, where: Where | None) -> Any:
        if self.models_in(node, scope):
            return _Built(self._assembly(node, scope)) if where is None else self._assembled(node, scope, where)
        if where is None:
            raise Refused("it varies")
        entry = self._counting(node, scope, where.name, where.space)
        if entry is None:
            raise Refused("no key covers it")
        return self.value(entry.value, scope, where)

    def _counting(self, node: ast.MapExpr, scope: Scope, name: str, space: Names) -> ast.MapEntry | None:
        best: tuple[int, int] | None = None
        found = None
        for order, entry in enumerate(node.entries):
            rest = isinstance(entry.key, ast.Name) and entry.key.id == "_"
            covered = set(space.names) if rest else part(self.place(entry.key, scope), space)
            rank = (len(covered) + rest, order)
            if name in covered and (best is None or rank < best):
                best, found = rank, entry
        return found

    def _assembly(self, node: ast.MapExpr, scope: Scope) -> _Assembly:
        known = self._put_together.get((id(node), id(scope)))
        if known is not None:
            return known[2]
        rest = [e for e in node.entries if isinstance(e.key, ast.Star) or getattr(e.key, "id", "") == "_"]
        if len(rest) != 1:
            raise Unjudged("where the rest comes from")
        inner = self.assemblies(rest[0].value, scope)
        model: Names = inner[0].space if inner else self._owner(rest[0].value, scope)
        origins = inner[0].origins if inner else [(model, i) for i in range(model.depth)]
        for entry in node.entries:
            steps = [] if entry in rest else self.place(entry.key, scope)
            value = entry.value
            if steps in (["layers"], ["layers", EVERY]):
                if self.head(value) == "stack":
                    origins = self.origins(value, scope)
                break
        space = names_of(model, len(origins), origins)

        def there(name: str, wider: Names) -> bool:
            return self._part(node, scope, Where(name, ((), name), (), wider, name), wider).there

        space = self.with_biases(space, self.models_in(node, scope), there)
        for entry in node.entries:
            if entry not in rest:
                part(self.place(entry.key, scope), space)
        self._put_together[id(node), id(scope)] = (node, scope, _Assembly(space, origins))
        return _Assembly(space, origins)

    def _assembled(self, node: ast.MapExpr, scope: Scope, where: Where) -> Any:
        return self._part(node, scope, where, self._assembly(node, scope).space)

    def _part(self, node: ast.MapExpr, scope: Scope, where: Where, space: Names) -> Region:
        if where.name not in space.names:
            if where.name.endswith(".bias"):
                return Region(0.0, there=False)
            raise Refused("the model that is put together lacks it")
        entry = self._counting(node, scope, where.name, space)
        if entry is None:
            raise Refused("no part gives it")
        at: tuple[Coordinate, tuple[int, ...]] = (((), where.name), ())
        if not (isinstance(entry.key, ast.Name) and entry.key.id == "_"):
            try:
                selection = select(self.place(entry.key, scope), space)
            except Refused:
                pass  # a role of every layer
            else:
                at = (selection.names[where.name], selection.counts)
        inner = Where(where.name, at[0], at[1], space, where.output)
        value = self.value(entry.value, scope, inner)
        return self.region(self.stacked(value, inner) if isinstance(value, Stack) else value, inner)

    def with_biases(self, space: Names, models: Sequence[Checkpoint], there: Callable[[str, Names], bool]) -> Names:
        """The names with those of the optional tensors that some of the models have, if what they
        come to does."""
        rests = {n.removeprefix(PREFIX).partition(".")[2] for m in models for n in m.space.names if n.endswith(".bias")}
        found = [n for r in sorted(rests) for j in range(space.depth) if (n := f"{PREFIX}{j}.{r}") not in space.names]
        wider = Names((*space.names, *found), space.depth)
        kept, state = list(space.names), (self.magnitude, self.sure)
        for name in found:
            try:
                has = there(name, wider)
            except Refused:
                has = True  # which making it tells
            kept += [name] * has
        self.magnitude, self.sure = state
        return Names(tuple(kept), space.depth)

    def stacked(self, stack: Stack, where: Where) -> Region:
        position, rest = where.coordinate
        total = sum(count for _, _, count in stack.parts)
        if len(position) != (total != 1) or (where.counts and where.counts[0] != total):
            raise Refused("another number of layers")
        layer = position[0] if position else 0
        for node, scope, count in stack.parts:
            if layer < count:
                coordinate = ((layer,) if count != 1 else (), rest)
                inner = replace(where, coordinate=coordinate, counts=(count,) if count != 1 else ())
                return self.region(self.value(node, scope, inner), inner)
            layer -= count
        raise AssertionError(layer)

    # --- regions at places

    def _picked(self, node: ast.Member | ast.Index, scope: Scope, where: Where | None) -> Any:
        root, steps = self.chain_lists(node, scope, where)
        if not steps:
            return root
        within, inner = scope, root
        # a name of something picked: its place goes on
        while isinstance(inner, ast.Name):
            found = within.find(inner.id)
            if not isinstance(found, Later):
                inner = found if found is not None else inner
                break
            inner, within = found.node, found.scope
            if isinstance(inner, ast.Member | ast.Index) and not isinstance(
                _root(inner), ast.ListExpr | ast.Comprehension
            ):
                below, before = self.chain(inner, within)
                inner, steps = below, [*before, *steps]
        if where is None:
            raise Unjudged("a place where nothing is made")
        if isinstance(inner, Checkpoint):
            selection = select(steps, inner.space)
            name = selection.at(where.coordinate) if selection.counts == where.counts else None
            if name is None and not where.name.endswith(".bias"):
                raise Refused("what is picked does not match")
            return self._stored(inner, name, where)
        if isinstance(inner, Region):
            raise Unjudged("a place of a parameter")
        space = self._owner(inner, within)
        selection = select(steps, space)
        name = selection.at(where.coordinate) if selection.counts == where.counts else None
        if name is None:
            if where.name.endswith(".bias"):
                return Region(0.0, there=False)
            raise Refused("what is picked does not match")
        looked = Where(name, ((), name), (), space, where.output)
        return self.region(self.value(inner, within, looked), looked)

    def chain_lists(self, node: ast.Expr, scope: Scope, where: Where | None) -> tuple[Any, list[Step]]:
        """The root of a chain and the steps after it; or the item of a list, and none."""
        if isinstance(node, ast.Index) and not isinstance(node.object, ast.Member | ast.Index):
            listed = node.object
            values = None
            if isinstance(listed, ast.ListExpr):
                values = tuple(Later(each, scope) for each in listed.items)
            elif isinstance(listed, ast.Comprehension):
                values = self.value(listed, scope, where)
            elif isinstance(listed, ast.Name):
                found = scope.find(listed.id)
                if isinstance(found, tuple):
                    values = found
                elif isinstance(found, Later) and isinstance(found.node, ast.ListExpr | ast.Comprehension):
                    values = self.value(found.node, found.scope, where)
            if values is not None:
                selector = node.selectors[0]
                assert isinstance(selector, ast.Item)
                number = self.value(selector.value, scope, where)
                if not isinstance(number, int) or not -len(values) <= number < len(values):
                    raise Refused("out of range")
                item = values[number]
                return (self.value(item.node, item.scope, where) if isinstance(item, Later) else item), []
        return self.chain(node, scope)

    # --- calls

    def _call(self, node: ast.Call, scope: Scope, where: Where | None) -> Any:
        head = self.head(node)
        found = scope.find(head)
        if head == "stack" and found is None:
            parts = [(a.value, scope, len(self._picked_layers(a.value, scope))) for a in node.arguments]
            return Stack(parts)
        if head == "tie" and found is None:
            raise Refused("a tie inside an expression")
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for argument in node.arguments:
            value = self.value(argument.value, scope, where)
            if isinstance(value, Checkpoint):
                value = self.region(value, where)
            elif isinstance(value, tuple):
                value = tuple(self.region(v, where) if isinstance(v, Checkpoint) else v for v in value)
            if argument.splat:
                positional.extend(value)
            elif argument.name is None:
                positional.append(value)
            else:
                named[argument.name] = value
        if isinstance(found, ast.Def):
            return self._expanded(found, positional, named, where)
        if head in METHODS:
            return self._method(head, positional, named, where)
        if head in FUNCTIONS:
            return FUNCTIONS[head](self, positional, named, where)
        raise Refused(f"no function {head}")

    def _expanded(self, node: ast.Def, positional: list[Any], named: dict[str, Any], where: Where | None) -> Any:
        """The value of a def; one over `*models` takes those that have the tensor."""
        values: dict[str, Any] = {}
        variadic = next((p for p in node.parameters if p.variadic), None)
        rest = list(positional)
        for p in node.parameters:
            if p.variadic:
                values[p.name.id], rest = tuple(rest), []
            elif p.name.id in named:
                values[p.name.id] = named[p.name.id]
            elif rest:
                values[p.name.id] = rest.pop(0)
        if rest or set(named) - {p.name.id for p in node.parameters}:
            raise Refused("an argument too many")
        if variadic is not None and variadic.kind is not None and variadic.kind.name == "region":
            models = [self.region(m, where) for m in values[variadic.name.id]]
            has = [k for k, m in enumerate(models) if m.there]
            if 0 < len(has) < len(models):
                values[variadic.name.id] = tuple(models[k] for k in has)
                for p in node.parameters:
                    own = values.get(p.name.id)
                    numeric = p.kind is not None and p.kind.name in ("number", "integer", "boolean")
                    if not p.variadic and numeric and isinstance(own, tuple) and len(own) == len(models):
                        values[p.name.id] = tuple(own[k] for k in has)
        scope = Scope({}, self.root)
        for p in node.parameters:
            if p.name.id in values:
                value = values[p.name.id]
            elif p.default is not None:
                value = self.value(p.default, scope, where)
            elif p.name.id == "base" and isinstance(self.root.bound.get("base"), Checkpoint):
                value = self.region(self.root.bound["base"], where)
            else:
                raise Refused("an argument is missing")
            scope.bound[p.name.id] = self._kind(p, value, where)
        for statement in node.body.statements:
            if isinstance(statement, ast.Let):
                scope.bound[statement.name.id] = self.value(statement.value, scope, where)
            elif self.value(statement.condition, scope, where) is not True:
                raise Refused("an expectation")
        value = self.value(node.body.result, scope, where)
        if isinstance(value, Region) and variadic is not None and values[variadic.name.id]:
            models = [m for m in values[variadic.name.id] if isinstance(m, Region)]
            if variadic.kind is not None and variadic.kind.name == "region":
                return Region(value.value, any(m.there for m in models))
        return value

    def _kind(self, parameter: ast.ParameterDeclaration, value: Any, where: Where | None) -> Any:
        kind = parameter.kind
        if kind is None:
            return value
        if isinstance(value, tuple):
            return tuple(self._kind(parameter, v, where) for v in value)
        if kind.name == "region":
            return self.region(value, where)
        if isinstance(value, Region):
            raise Refused("not a region")
        if kind.name in ("number", "integer"):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise Refused("no number")
            low = -math.inf if kind.low is None else kind.low
            high = math.inf if kind.high is None else kind.high
            if not low <= value <= high:
                raise Refused("out of bounds")
        return value

    def _method(self, name: str, positional: list[Any], named: dict[str, Any], where: Where | None) -> Any:
        """A merge method: over those of its models that have the tensor, or of two the one that has
        it."""
        options = dict(named)
        regions = [self.region(v, where) for v in positional]
        based = name in BASED
        base = None
        if based:
            given = options.pop("base", self.root.bound.get("base"))
            if given is None:
                raise Refused("no base")
            base = self.region(given, where)
        there = any(r.there for r in regions)
        if name in ("slerp", "nearswap"):
            if len(regions) != 2:
                raise Refused("two models")
            if sum(r.there for r in regions) == 1:
                return next(r for r in regions if r.there)
        elif len(regions) > 1 and 0 < sum(r.there for r in regions) < len(regions):
            has = [k for k, r in enumerate(regions) if r.there]
            for key, value in options.items():
                if isinstance(value, tuple) and len(value) == len(regions):
                    options[key] = tuple(value[k] for k in has)
            regions = [regions[k] for k in has]
        for key in ("weight", "density"):
            if key in options or key in METHODS[name]:
                value = options.get(key, 1)
                each = value if isinstance(value, tuple) else (value,) * len(regions)
                if len(each) != len(regions) or any(isinstance(v, Region) for v in each):
                    raise Refused("one value a model")
                options[key] = each
        arrays = [np.asarray(r.value, dtype=np.float64) for r in (*regions, *((base,) if base else ()))]
        shapes = {a.shape for a in arrays} - {()}
        if len(shapes) > 1:
            raise Refused("shapes differ")
        if shapes and any(r.there and np.ndim(r.value) == 0 for r in regions):
            raise Unjudged("a plain number as a model")
        arrays = [np.broadcast_to(a, next(iter(shapes))) if shapes else a for a in arrays]
        try:
            value, sure = reference_methods.METHODS[name](arrays, **options)
        except reference_methods.Wrong:
            raise Refused("numbers that the method does not take") from None
        self.met(value)
        self.sure = self.sure and sure
        return Region(value, there)


@dataclass(frozen=True)
class Stack:
    parts: list[tuple[ast.Expr, Scope, int]]


@dataclass(frozen=True)
class _Assembly:
    space: Names
    origins: list[tuple[Names, int]]


@dataclass(frozen=True)
class _Built:
    assembly: _Assembly


def _root(node: ast.Expr) -> ast.Expr:
    while isinstance(node, ast.Member | ast.Index):
        node = node.object
    return node


def _children(node: object) -> Iterator[object]:
    for name in getattr(type(node), "__slots__", ()):
        value = getattr(node, name)
        if name == "span" or isinstance(value, str | int | float | bool | None):
            continue
        yield from value if isinstance(value, tuple) else (value,)


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "and": lambda a, b: (a != 0) & (b != 0),
    "or": lambda a, b: (a != 0) | (b != 0),
}


METHODS: dict[str, tuple[str, ...]] = {
    "linear": ("weight",),
    "slerp": (),
    "nearswap": (),
    "task_arithmetic": ("weight",),
    "ties": ("weight", "density"),
}
BASED = ("task_arithmetic", "ties")
