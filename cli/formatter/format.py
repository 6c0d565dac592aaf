"""`mergec fmt`: a syntax tree back to text, in the one layout there is.

Statements stand one per line, blank lines between them collapse to one, and a call, list, map or
`output` that is wider than `WIDTH` has one part per line. Numbers and strings keep the text they
were written with. Formatting the result again changes nothing, and it parses to an equal tree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...grammar import ast
from ...grammar.literals import LiteralError, read_number, read_string, write_string
from ...grammar.source import Span
from .comments import Slots, place_comments
from .layout import Broken, Doc, Hard, Indent, Line, Note, group, join, lay_out

WIDTH = 100

# How tightly operators bind, the loosest first; a part that binds less than its place asks for gets
# parentheses.
_CONDITIONAL, _OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _SIGN, _POWER, _POSTFIX = range(10)
_BINARY = {"or": _OR, "and": _AND, "+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "**": _POWER}
_BLANK_LINE = re.compile(r"\n[ \t\f\r;]*\n")
_NUMBER = re.compile(r"[0-9][0-9_]*(\.[0-9][0-9_]*)?([eE][+-]?[0-9]+)?")


def format_module(module: ast.Module) -> str:
    """The text of a module, comments included; it ends with a line end unless it is empty.

    >>> from mergec.grammar.parse import parse
    >>> from mergec.grammar.source import Source
    >>> text = "head=tie( embed );layers[0..15]=ties(a,b,density=0.50)  # both"
    >>> print(format_module(parse(Source("recipe.mrg", text))), end="")
    head = tie(embed)
    layers[0..15] = ties(a, b, density=0.50)  # both
    """
    text = lay_out(_Printer(module).module(), WIDTH)
    return text + "\n" if text else ""


def format_expression(expression: ast.Expr) -> str:
    """An expression on one line, without comments, as `--explain` and messages quote it."""
    module = ast.Module(expression.span.source, (), ())
    return lay_out(group(_Printer(module).expression(expression)), 1_000_000)


class _Printer:
    """Makes layout documents of nodes; `_slots` says which comments go with them."""

    def __init__(self, module: ast.Module) -> None:
        self._module = module
        self._slots = place_comments(module)

    # --- statements

    def module(self) -> Doc:
        statements = self._module.statements
        docs = [self._statement(each) for each in statements]
        return self._lines(self._of(self._module), docs, [each.span for each in statements])

    def _of(self, node: object) -> Slots:
        return self._slots.get(id(node)) or Slots()

    def _lines(self, slots: Slots, docs: Sequence[Doc], spans: Sequence[Span]) -> Doc:
        """Statements and comments on lines of their own, with one blank line where there were
        some."""
        parts: list[Doc] = []
        previous: Span | None = None

        def add(doc: Doc, span: Span) -> None:
            nonlocal previous
            if previous is not None:
                parts.append(Hard())
                if _blank_line_between(previous, span):
                    parts.append(Hard())
            parts.append(doc)
            previous = span

        for index, (doc, span) in enumerate(zip(docs, spans, strict=True)):
            above = slots.above.get(index, [])
            own = len(above) - slots.inside.get(index, 0)
            for position, comment in enumerate(above):
                # A comment from inside the statement stands where the statement stood.
                add(Note(comment.text), comment.span if position < own else span)
            add(doc, span)
            if index in slots.after:
                parts.append(Note("  " + slots.after[index].text))
                previous = slots.after[index].span
        for comment in slots.last:
            add(Note(comment.text), comment.span)
        return join(*parts)

    def _statement(self, node: ast.Statement) -> Doc:
        match node:
            case ast.Let():
                return join(f"let {node.name.id} = ", self._value(node.value))
            case ast.Assign():
                return join(self.expression(node.place), " = ", self._value(node.value))
            case ast.Expect():
                message: tuple[Doc, ...] = (", ", _string(node.message)) if node.message else ()
                return join("expect ", self._value(node.condition), *message)
            case ast.Use():
                return "use " + _string(node.path) + (f" as {node.alias.id}" if node.alias else "")
            case ast.OutputStatement():
                return self._bracketed("output(", self._arguments(node.arguments), ")", node)
            case ast.Def():
                parameters = [self._parameter(each) for each in node.parameters]
                return join(self._bracketed(f"def {node.name.id}(", parameters, ")", node), self._body(node.body))

    def _body(self, body: ast.Block) -> Doc:
        if not body.braces and not body.statements:
            return join(" = ", self._value(body.result))
        docs = [*(self._statement(each) for each in body.statements), self._value(body.result)]
        spans = [*(each.span for each in body.statements), body.result.span]
        return join(" {", Indent(join(Hard(), self._lines(self._of(body), docs, spans))), Hard(), "}")

    def _parameter(self, node: ast.ParameterDeclaration) -> Doc:
        text = ("*" if node.variadic else "") + node.name.id + (f": {_kind(node.kind)}" if node.kind else "")
        if node.default is None:
            return text
        return join(text, " = " if node.kind else "=", self._part(node.default))

    def _value(self, node: ast.Expr) -> Doc:
        """An expression outside all brackets: broken over lines, it needs parentheses."""
        doc = self.expression(node)
        if isinstance(node, ast.Binary | ast.Unary | ast.Conditional):
            return group(join(Broken("("), Indent(join(Line(""), doc)), Line(""), Broken(")")))
        return doc

    # --- expressions

    def expression(self, node: ast.Expr) -> Doc:
        match node:
            case ast.Number():
                return _number(node)
            case ast.String():
                return _string(node)
            case ast.Boolean():
                return "true" if node.value else "false"
            case ast.NoneLiteral():
                return "none"
            case ast.Name():
                return node.id
            case ast.Star():
                return "*"
            case ast.ListExpr():
                return self._bracketed("[", [self._part(each) for each in node.items], "]", node)
            case ast.MapExpr():
                return self._bracketed("{", [self._entry(each) for each in node.entries], "}", node)
            case ast.Call():
                function = self._object(node.function)
                return join(function, self._bracketed("(", self._arguments(node.arguments), ")", node))
            case ast.Unary():
                level = _level(node)
                return join("not " if node.op == "not" else node.op, self._operand(node.operand, level))
            case ast.Binary():
                return self._binary(node)
            case ast.Conditional():
                then, condition = self._on_own_lines(node.then, _OR), self._on_own_lines(node.condition, _OR)
                first = group(join(then, Indent(join(Line(" "), "if ", condition))))
                # a chain of them has one case per line
                chain = isinstance(node.other, ast.Conditional)
                other = self.expression(node.other) if chain else self._on_own_lines(node.other, _CONDITIONAL)
                return join(first, Line(" "), "else ", other)
            case ast.Comprehension():
                targets = ", ".join(each.id for each in node.targets)
                inside = join(self._part(node.element), Line(" "), f"for {targets} in ", self._part(node.iterable))
                return group(join("[", Indent(join(Line(""), inside)), Line(""), "]"))
            case ast.Member():
                name = write_string(node.name) if node.glob else node.name
                return join(self._object(node.object), ".", name)
            case ast.Index():
                parts: list[Doc] = []
                for selector in node.selectors:
                    parts += [", "] if parts else []
                    parts.append(self._selector(selector))
                return join(self._object(node.object), "[", *parts, "]")

    def _binary(self, node: ast.Binary) -> Doc:
        level = _level(node)
        # `-` and `/` group to the left, `**` to the right with a sign allowed there, comparisons
        # not at all.
        left = level + 1 if level in (_COMPARISON, _POWER) else level
        right = _SIGN if level == _POWER else level + 1
        first = self._operand(node.left, left)
        if isinstance(node.left, ast.Binary) and left <= _level(node.left) != level:
            first = group(first)
        second = self._operand(node.right, right)
        if isinstance(node.right, ast.Binary | ast.Unary):
            second = group(Indent(second))
        return join(first, Line(" "), node.op, " ", second)

    def _operand(self, node: ast.Expr, level: int) -> Doc:
        """A part of a larger expression, in parentheses if it binds less tightly than `level`."""
        doc = self.expression(node)
        return doc if _level(node) >= level else _in_parentheses(doc)

    def _on_own_lines(self, node: ast.Expr, level: int) -> Doc:
        """An operand whose own lines end only where it alone is too long."""
        doc = self._operand(node, level)
        return group(Indent(doc)) if isinstance(node, ast.Binary | ast.Unary) else doc

    def _object(self, node: ast.Expr) -> Doc:
        """What a call, member or index applies to."""
        doc = self.expression(node)
        # `1.0` is no member of `1`.
        return _in_parentheses(doc) if _level(node) < _POSTFIX or isinstance(node, ast.Number) else doc

    def _part(self, node: ast.Expr) -> Doc:
        """An expression inside brackets, where lines may end as they like."""
        doc = self.expression(node)
        return group(Indent(doc)) if isinstance(node, ast.Binary | ast.Unary | ast.Conditional) else doc

    def _arguments(self, arguments: Sequence[ast.Argument]) -> list[Doc]:
        docs: list[Doc] = []
        for each in arguments:
            name = "*" if each.splat else f"{each.name}=" if each.name is not None else ""
            docs.append(join(name, self._part(each.value)))
        return docs

    def _entry(self, node: ast.MapEntry) -> Doc:
        return join(self.expression(node.key), ": ", self._part(node.value))

    def _selector(self, node: ast.Selector) -> Doc:
        match node:
            case ast.All():
                return "*"
            case ast.Item():
                return self._part(node.value)
            case ast.Range():
                start = self._operand(node.start, _SUM) if node.start else ""
                stop = self._operand(node.stop, _SUM) if node.stop else ""
                step: tuple[Doc, ...] = (" by ", self._operand(node.step, _SUM)) if node.step else ()
                return group(Indent(join(start, "..", stop, *step)))

    def _bracketed(self, opening: str, items: Sequence[Doc], closing: str, node: object) -> Doc:
        """Items between brackets, on one line or one per line with a comma after each."""
        slots = self._of(node)
        if not items and not slots.last:
            return opening + closing
        parts: list[Doc] = []
        for index, item in enumerate(items):
            parts.append(Line(" " if index else ""))
            for comment in slots.above.get(index, ()):
                parts += [Note(comment.text), Hard()]
            parts += [item, "," if index < len(items) - 1 else Broken(",")]
            if index in slots.after:
                parts.append(Note("  " + slots.after[index].text))
        for comment in slots.last:
            parts += [Line(""), Note(comment.text)]
        return group(join(opening, Indent(join(*parts)), Line(""), closing))


def _in_parentheses(doc: Doc) -> Doc:
    return group(join("(", Indent(join(Line(""), doc)), Line(""), ")"))


def _level(node: ast.Expr) -> int:
    match node:
        case ast.Conditional():
            return _CONDITIONAL
        case ast.Unary():
            return _NOT if node.op == "not" else _SIGN
        case ast.Binary():
            return _BINARY.get(node.op, _COMPARISON)
        case ast.Number() if node.value < 0:
            return _SIGN
        case _:
            return _POSTFIX


def _blank_line_between(first: Span, second: Span) -> bool:
    # Not by line numbers: a span leaves out the parentheses around an expression, which may take
    # lines themselves.
    return _BLANK_LINE.search(first.source.text, first.end, second.start) is not None


def _number(node: ast.Number) -> str:
    """The number as it was written; a number that was made, not read, has no text of its own."""
    text = node.span.text
    if _NUMBER.fullmatch(text):
        try:
            if read_number(text) == node.value:
                return text
        except (LiteralError, ValueError):
            pass
    return repr(node.value)


def _string(node: ast.String) -> str:
    text = node.span.text
    if len(text) >= 2 and text[0] == text[-1] == '"':
        try:
            if read_string(text) == node.value:
                return text.replace("\r\n", "\n")
        except LiteralError:
            pass
    return write_string(node.value)


def _kind(kind: ast.Kind) -> str:
    if kind.low is None and kind.high is None:
        return kind.name
    low, high = ("" if bound is None else repr(bound).removesuffix(".0") for bound in (kind.low, kind.high))
    return f"{kind.name}({low}..{high})"
