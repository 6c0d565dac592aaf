"""Names in syntax trees: which are free, and which defs call themselves. Nothing is evaluated
here."""

from __future__ import annotations

from typing import Any

from ...grammar import ast
from ...grammar.diagnostic import Diagnostic, finding

_MOST_SHOWN = 12  # of a circle of defs; of a longer one the ends


def cycles(module: ast.Module) -> list[Diagnostic]:
    """Defs that call themselves, directly or through others."""
    defs = {s.name.id: s for s in module.statements if isinstance(s, ast.Def)}
    calls = {name: [n for n in names_in(d.body) if n.id in defs] for name, d in defs.items()}
    done: set[str] = set()
    found: list[Diagnostic] = []
    for start in defs:
        stack: list[tuple[str, int]] = [(start, 0)]
        trail, above = [start], {start}
        while stack and start not in done:
            name, k = stack.pop()
            if k < len(calls[name]):
                stack.append((name, k + 1))
                callee = calls[name][k]
                if callee.id in above:
                    circle = [f"`{c}`" for c in [*trail[trail.index(callee.id) :], callee.id]]
                    shown = " -> ".join(circle if len(circle) <= _MOST_SHOWN else [*circle[:4], "…", *circle[-4:]])
                    found.append(
                        finding("E0207", f"a def can't call itself: {shown}", callee.span, "closes the circle")
                    )
                    done.update(trail)
                    break
                if callee.id not in done:
                    stack.append((callee.id, 0))
                    trail.append(callee.id)
                    above.add(callee.id)
            else:
                done.add(name)
                above.discard(trail.pop())
    return found


def bound_and_free(body: ast.Block) -> tuple[set[str], list[ast.Name]]:
    """Names that comprehensions bind, and names that stand for values, in a def's body; places are
    skipped."""
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
        elif isinstance(item, ast.MapEntry | ast.Let):
            todo.append(item.value)
        elif isinstance(item, ast.Call) and isinstance(item.function, ast.Name) and item.function.id == "tie":
            continue
        else:
            todo.extend(ast.below(item))
    return bound, free


def names_in(node: Any) -> list[ast.Name]:
    """All `Name` nodes below a syntax node."""
    out: list[ast.Name] = []
    todo = [node]
    while todo:
        item = todo.pop()
        if isinstance(item, ast.Name):
            out.append(item)
        else:
            todo.extend(ast.below(item))
    return out
