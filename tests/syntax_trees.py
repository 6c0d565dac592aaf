"""Syntax trees as nested tuples without spans: for comparing, and short enough to read in a
test."""

from __future__ import annotations

import dataclasses
from typing import Any

from mergec.grammar import ast
from mergec.grammar.source import Source, Span


def plain(node: Any) -> Any:
    """`node` as (class, field, …) tuples, spans and sources left out."""
    if isinstance(node, tuple):
        return tuple(plain(each) for each in node)
    if not dataclasses.is_dataclass(node):
        return (type(node).__name__, node)
    names = [field.name for field in dataclasses.fields(node)]
    values = [getattr(node, name) for name in names if not name.startswith("_")]
    return (type(node).__name__, *(plain(each) for each in values if not isinstance(each, Span | Source)))


def sketch(node: Any) -> str:
    """An expression or statement as a compact S-expression."""
    match node:
        case ast.Number():
            return repr(node.value)
        case ast.String():
            return repr(node.value)
        case ast.Name():
            return node.id
        case ast.Star() | ast.All():
            return "*"
        case ast.Boolean():
            return str(node.value)
        case ast.NoneLiteral():
            return "None"
        case ast.Member():
            return f"(. {sketch(node.object)} {node.name!r})" if node.glob else f"(. {sketch(node.object)} {node.name})"
        case ast.Item():
            return sketch(node.value)
        case ast.Range():
            step = f" by {sketch(node.step)}" if node.step else ""
            return f"{sketch(node.start) if node.start else ''}..{sketch(node.stop) if node.stop else ''}{step}"
        case ast.Index():
            return f"(index {sketch(node.object)} {' '.join(map(sketch, node.selectors))})"
        case ast.Binary():
            return f"({node.op} {sketch(node.left)} {sketch(node.right)})"
        case ast.Unary():
            return f"({node.op} {sketch(node.operand)})"
        case ast.Conditional():
            return f"(if {sketch(node.condition)} {sketch(node.then)} {sketch(node.other)})"
        case ast.Argument():
            return ("*" if node.splat else f"{node.name}=" if node.name else "") + sketch(node.value)
        case ast.Call():
            return f"({' '.join(map(sketch, (node.function, *node.arguments)))})"
        case ast.ListExpr():
            return f"[{' '.join(map(sketch, node.items))}]"
        case ast.MapEntry():
            return f"{sketch(node.key)}: {sketch(node.value)}"
        case ast.MapExpr():
            return f"{{{', '.join(map(sketch, node.entries))}}}"
        case ast.Comprehension():
            targets = " ".join(map(sketch, node.targets))
            return f"[for {targets} in {sketch(node.iterable)}: {sketch(node.element)}]"
        case ast.Let():
            return f"(let {node.name.id} {sketch(node.value)})"
        case ast.Assign():
            return f"(= {sketch(node.place)} {sketch(node.value)})"
        case ast.Expect():
            return f"(expect {sketch(node.condition)}{' ' + sketch(node.message) if node.message else ''})"
        case ast.Use():
            return f"(use {sketch(node.path)}{' as ' + node.alias.id if node.alias else ''})"
        case ast.OutputStatement():
            return f"(output {' '.join(map(sketch, node.arguments))})"
        case ast.Kind():
            return f"{node.name}({node.low}..{node.high})"
        case ast.ParameterDeclaration():
            kind = f":{sketch(node.kind)}" if node.kind else ""
            default = f"={sketch(node.default)}" if node.default else ""
            return ("*" if node.variadic else "") + node.name.id + kind + default
        case ast.Block():
            return " ".join(map(sketch, (*node.statements, node.result)))
        case ast.Def():
            return f"(def {node.name.id} ({' '.join(map(sketch, node.parameters))}) {sketch(node.body)})"
    raise AssertionError(node)
