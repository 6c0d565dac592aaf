"""What follows from a config: the kind of a layer, whether a part is there, a length.

A rule is an expression in a small part of Python's syntax. Its names are keys of the config, dotted
where nested; `i` is the number of a layer and `n` how many layers its stack has:

    'full_attention' if (i + 1) % sliding_window_pattern == 0 else 'sliding_attention'
    num_experts > 0 and i not in mlp_only_layers and (i + 1) % decoder_sparse_step == 0
    num_attention_heads * head_dim
"""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from ...grammar.records import dataclass

Lookup = Callable[[str], Any]
"""A config: key to value. Raises KeyError for a key that it has no value for."""

_OPERATORS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda x, items: x in items,
    ast.NotIn: lambda x, items: x not in items,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {"len": len, "min": min, "max": max}
_POSITION = ("i", "n")


class Undecided(Exception):
    """A rule asks for a key that the config lacks, or that holds something of another kind."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, parsed: its text, and the config's keys that it reads, in order of appearance."""

    text: str
    keys: tuple[str, ...]
    tree: ast.expr

    def value(self, config: Lookup, *, i: int | None = None, n: int | None = None) -> Any:
        """What the rule comes to under a config. Raises Undecided."""
        try:
            return _value(self.tree, config, {"i": i, "n": n})
        except (KeyError, TypeError, IndexError, ZeroDivisionError) as error:
            raise Undecided(str(error)) from error


@functools.lru_cache(maxsize=1024)
def rule(text: str) -> Rule:
    """Parses a rule. Raises ValueError for what is none."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"no rule: {text}") from error
    keys: dict[str, None] = {}
    _gather(tree, keys)
    return Rule(text, tuple(keys), tree)


def _key(node: ast.expr) -> str | None:
    """The key that a name, or a chain of attributes, stands for."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        outer = _key(node.value)
        return outer and f"{outer}.{node.attr}"
    return None


def _gather(node: ast.expr, keys: dict[str, None]) -> None:
    """Enters the keys that an expression reads. Raises ValueError where it is no rule."""
    key = _key(node)
    if key is not None:
        if key not in _POSITION:
            keys[key] = None
        return
    match node:
        case ast.Constant():
            parts: list[ast.expr] = []
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            pass
        case ast.IfExp(test=test, body=body, orelse=orelse):
            parts = [test, body, orelse]
        case ast.BoolOp(values=parts):
            pass
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            parts = [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            parts = [left, right]
        case ast.Compare(left=left, ops=ops, comparators=rest) if all(type(op) in _OPERATORS for op in ops):
            parts = [left, *rest]
        case ast.Subscript(value=value, slice=index):
            parts = [value, index]
        case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if name in _FUNCTIONS:
            pass
        case _:
            raise ValueError(f"not in a rule: {ast.unparse(node)}")
    for part in parts:
        _gather(part, keys)


def _value(node: ast.expr, config: Lookup, position: Mapping[str, int | None]) -> Any:
    key = _key(node)
    if key is not None:
        return position[key] if key in position else config(key)
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return [_value(part, config, position) for part in parts]
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, config, position) else orelse, config, position)
        case ast.BoolOp(op=op, values=parts):
            found: Any = None
            for part in parts:
                found = _value(part, config, position)
                if bool(found) is isinstance(op, ast.Or):
                    break
            return found
        case ast.UnaryOp(op=op, operand=operand):
            inner = _value(operand, config, position)
            return not inner if isinstance(op, ast.Not) else -inner
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, config, position), _value(right, config, position))
        case ast.Compare(left=left, ops=ops, comparators=rest):
            before = _value(left, config, position)
            for each, right in zip(ops, rest, strict=True):
                after = _value(right, config, position)
                if not _OPERATORS[type(each)](before, after):
                    return False
                before = after
            return True
        case ast.Subscript(value=value, slice=index):
            return _value(value, config, position)[_value(index, config, position)]
        case ast.Call(func=ast.Name(id=name), args=parts):
            return _FUNCTIONS[name](*[_value(part, config, position) for part in parts])
    raise AssertionError(f"unchecked: {ast.unparse(node)}")
