"""From Lark's trees to the syntax tree: one method per rule of merge.lark, called from the leaves
up."""

from __future__ import annotations

from typing import Any

from lark import Token, Tree

from . import ast
from .diagnostic import Diagnostic, Label, finding
from .literals import LiteralError, read_number, read_string
from .scan import MAX_DEPTH
from .source import Source, Span

# Words that can't be values, and words that begin a statement; neither can be bound.
_OPERATORS = frozenset({"if", "else", "and", "or", "not", "for", "in", "by", "true", "false", "none"})
_STATEMENTS = frozenset({"let", "def", "use", "output", "expect", "as"})
# Rules that are a level of nesting in the syntax tree; the others only hold parts of one.
_LEVELS = frozenset(
    {"conditional", "binary", "unary", "call", "member", "glob", "index", "list", "comprehension", "map"}
)

Children = list[Any]


def too_deep(tree: Tree[Token], source: Source, offset: int) -> Diagnostic | None:
    """E0107 where expressions are nested more than `MAX_DEPTH` levels deep."""
    pending = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        depth += node.data in _LEVELS
        if depth > MAX_DEPTH:
            span = Span(source, offset + node.meta.start_pos, offset + node.meta.end_pos)
            message = f"this expression is nested more than {MAX_DEPTH} levels deep"
            return finding("E0107", message, span, help="name its parts with `let`")
        pending.extend((child, depth) for child in node.children if isinstance(child, Tree))
    return None


class Builder:
    """Builds the syntax tree of one text; what is wrong with literals and names is collected in
    `diagnostics`.

    `offset` is where in the source the parsed text begins.
    """

    def __init__(self, source: Source, offset: int) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._source, self._offset = source, offset

    def build(self, tree: Tree[Token]) -> Any:
        """The value of a tree: a tuple of statements for a module, else a node. No deeper than
        `too_deep` allows."""
        values: dict[int, Any] = {}
        for node in tree.iter_subtrees():
            children = [values[id(child)] if isinstance(child, Tree) else child for child in node.children]
            values[id(node)] = getattr(self, "_" + node.data)(self._span_of_tree(node), children)
        return values[id(tree)]

    # --- spans and findings

    def _span_of_tree(self, tree: Tree[Token]) -> Span:
        if tree.meta.empty:
            return Span(self._source, self._offset, self._offset)
        return Span(self._source, self._offset + tree.meta.start_pos, self._offset + tree.meta.end_pos)

    def _span(self, token: Token) -> Span:
        start = self._offset + (token.start_pos or 0)
        return Span(self._source, start, start + len(token))

    def _report(self, code: str, message: str, span: Span, label: str = "", help: str = "") -> None:
        self.diagnostics.append(finding(code, message, span, label, help=help if help else ()))

    def _literal_error(self, error: LiteralError, span: Span) -> None:
        part = Span(span.source, span.start + error.start, span.start + error.end)
        self._report(error.code, error.message, part, help=error.help)

    def _binding(self, token: Token) -> ast.Name:
        """A name that is given a meaning here."""
        span = self._span(token)
        if token in _STATEMENTS or token in _OPERATORS:
            self._report("E0110", f"`{token}` is a keyword and can't be a name", span, help="choose another name")
        return ast.Name(str(token), span)

    # --- files and statements

    def _module(self, _: Span, children: Children) -> tuple[ast.Statement, ...]:
        return tuple(child for child in children if not isinstance(child, Token))

    def _let(self, span: Span, children: Children) -> ast.Let:
        _, name, value = children
        return ast.Let(self._binding(name), value, span)

    def _use(self, span: Span, children: Children) -> ast.Use:
        _, token, *alias = children
        path = self._string(self._span(token), [token])
        return ast.Use(path, self._binding(alias[0]) if alias else None, span)

    def _output(self, span: Span, children: Children) -> ast.OutputStatement:
        keyword, *arguments = children
        for argument in arguments:
            if argument.name is None:
                message = "`output` takes its settings by name"
                help = 'for instance `output(like=base, dtype="bfloat16")`'
                self._report("E0112", message, argument.span, "this one has no name", help)
        return ast.OutputStatement(tuple(arguments), self._span(keyword), span)

    def _expect(self, span: Span, children: Children) -> ast.Expect:
        _, condition, *message = children
        return ast.Expect(condition, message[0] if message else None, span)

    def _assign(self, span: Span, children: Children) -> ast.Assign:
        place, value = children
        return ast.Assign(place, value, span)

    def _def(self, span: Span, children: Children) -> ast.Def:
        _, name, *parameters, body = children
        return ast.Def(self._binding(name), tuple(parameters), body, span)

    def _parameter(self, span: Span, children: Children) -> ast.ParameterDeclaration:
        names = [child for child in children if isinstance(child, Token)]
        kinds = [child for child in children if isinstance(child, ast.Kind)]
        defaults = [child for child in children if not isinstance(child, Token | ast.Kind)]
        return ast.ParameterDeclaration(
            self._binding(names[-1]),
            kinds[0] if kinds else None,
            defaults[0] if defaults else None,
            variadic=len(names) == 2,
            span=span,
        )

    def _kind(self, span: Span, children: Children) -> ast.Kind:
        name, *bounds = children
        low: float | None = None
        high: float | None = None
        if bounds:
            middle = next(i for i, child in enumerate(bounds) if isinstance(child, Token))
            low = bounds[0] if middle > 0 else None
            high = bounds[-1] if middle < len(bounds) - 1 else None
        if low is not None and high is not None and low > high:
            self._report("E0109", "the bounds of this kind are the wrong way round", span)
        return ast.Kind(str(name), low, high, span)

    def _bound(self, _: Span, children: Children) -> float:
        *minus, token = children
        value = self._number(self._span(token), [token]).value
        return -float(value) if minus else float(value)

    def _expression_body(self, _: Span, children: Children) -> ast.Block:
        (result,) = children
        return ast.Block((), result, braces=False, span=result.span)

    def _block_body(self, span: Span, children: Children) -> ast.Block:
        *statements, result = children
        return ast.Block(tuple(statements), result, braces=True, span=span)

    # --- places and indexes

    def _star(self, span: Span, _: Children) -> ast.Star:
        return ast.Star(span)

    def _soft(self, span: Span, children: Children) -> ast.Name:
        return ast.Name(str(children[0]), span)

    def _member(self, span: Span, children: Children) -> ast.Member:
        target, name = children
        return ast.Member(target, str(name), glob=False, span=span)

    def _glob(self, span: Span, children: Children) -> ast.Member:
        target, token = children
        return ast.Member(target, self._string(self._span(token), [token]).value, glob=True, span=span)

    def _index(self, span: Span, children: Children) -> ast.Index:
        target, *selectors = children
        return ast.Index(target, tuple(selectors), span)

    def _item(self, span: Span, children: Children) -> ast.Item:
        return ast.Item(children[0], span)

    def _range(self, span: Span, children: Children) -> ast.Range:
        kinds = [child.type if isinstance(child, Token) else "" for child in children]
        dots = kinds.index("RANGE")
        end = kinds.index("BY") if "BY" in kinds else len(children)
        return ast.Range(
            children[0] if dots == 1 else None,
            children[dots + 1] if end > dots + 1 else None,
            children[end + 1] if end < len(children) else None,
            span,
        )

    def _all(self, span: Span, _: Children) -> ast.All:
        return ast.All(span)

    # --- expressions

    def _conditional(self, span: Span, children: Children) -> ast.Conditional:
        then, condition, other = children
        return ast.Conditional(condition, then, other, span)

    def _binary(self, span: Span, children: Children) -> ast.Binary:
        left, op, right = children
        return ast.Binary(str(op), left, right, span)

    def _unary(self, span: Span, children: Children) -> ast.Unary:
        op, operand = children
        return ast.Unary(str(op), operand, span)

    def _call(self, span: Span, children: Children) -> ast.Call:
        function, *arguments = children
        named: ast.Argument | None = None
        for argument in arguments:
            if argument.name is not None:
                named = argument
            elif named is not None and not argument.splat:
                message = "a positional argument follows one with a name"
                labels = (Label(argument.span, "this has no name"), Label(named.span, "this has one"))
                self.diagnostics.append(finding("E0112", message, labels, help="put it before the named ones"))
                break
        return ast.Call(function, tuple(arguments), span)

    def _positional(self, span: Span, children: Children) -> ast.Argument:
        return ast.Argument(None, False, children[0], span)

    def _keyword(self, span: Span, children: Children) -> ast.Argument:
        name, value = children
        return ast.Argument(str(name), False, value, span)

    def _splat(self, span: Span, children: Children) -> ast.Argument:
        return ast.Argument(None, True, children[1], span)

    def _list(self, span: Span, children: Children) -> ast.ListExpr:
        return ast.ListExpr(tuple(children), span)

    def _comprehension(self, span: Span, children: Children) -> ast.Comprehension:
        element, *targets, iterable = children
        return ast.Comprehension(element, tuple(targets), iterable, span)

    def _target(self, _: Span, children: Children) -> ast.Name:
        return self._binding(children[0])

    def _map(self, span: Span, children: Children) -> ast.MapExpr:
        return ast.MapExpr(tuple(children), span)

    def _entry(self, span: Span, children: Children) -> ast.MapEntry:
        key, value = children
        return ast.MapEntry(key, value, span)

    def _number(self, span: Span, children: Children) -> ast.Number:
        try:
            return ast.Number(read_number(str(children[0])), span)
        except LiteralError as error:
            self._literal_error(error, span)
            return ast.Number(0, span)

    def _string(self, span: Span, children: Children) -> ast.String:
        try:
            return ast.String(read_string(str(children[0])), span)
        except LiteralError as error:
            self._literal_error(error, span)
            return ast.String("", span)

    def _true(self, span: Span, _: Children) -> ast.Boolean:
        return ast.Boolean(True, span)

    def _false(self, span: Span, _: Children) -> ast.Boolean:
        return ast.Boolean(False, span)

    def _none(self, span: Span, _: Children) -> ast.NoneLiteral:
        return ast.NoneLiteral(span)

    def _name(self, span: Span, children: Children) -> ast.Name:
        name = str(children[0])
        if name in _OPERATORS:
            self._report("E0110", f"`{name}` is a keyword and can't be a name", span)
        return ast.Name(name, span)
