"""What to say about a text that doesn't parse: a slip from the table, or what was expected and what
was found."""

from __future__ import annotations

import re

from .diagnostic import Diagnostic, finding
from .records import dataclass
from .source import Span
from .syntax_errors import SLIPS, Slip


@dataclass(frozen=True, slots=True)
class Fault:
    """Where and how the parser stopped.

    `before` is the statement up to the fault, `rest` what follows, the fault included. `expected`
    holds the terminals of merge.lark that could have stood there, `inside` the innermost open
    bracket or "". `form` is "assignment" if an expression and a `=` are all right but the
    expression is no place (`span` is then the expression), "expression" if the statement is one
    whole expression, else "".
    """

    span: Span
    before: str
    rest: str
    expected: frozenset[str]
    inside: str
    form: str = ""


# A longer statement is data rather than a slip of the pen, and the table's patterns would take long
# to search it.
_LONGEST_SLIP = 10_000

# What the grammar's terminals are called in messages. Those that can begin an expression are summed
# up.
_EXPRESSION = frozenset(
    {"NUMBER", "STRING", "LONG_STRING", "NAME", "TRUE", "FALSE", "NONE"}
    | {"NOT", "PLUS", "MINUS", "LPAR", "LSQB", "LBRACE", "STAR"}
)
_OPERATORS = frozenset(
    {"PLUS", "MINUS", "STAR", "SLASH", "POWER", "COMPARE", "AND", "OR"}
    | {"_IF", "_FOR", "DOT", "LPAR", "LSQB", "RANGE", "BY"}
)
_WORDS = {
    "COMMA": "`,`",
    "COLON": "`:`",
    "DOT": "`.`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "_EQUALS": "`=`",
    "_IN": "`in`",
    "_ELSE": "`else`",
    "_AS": "`as`",
    "RANGE": "`..`",
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "_END": "the end of the statement",
}


def explain(fault: Fault) -> Diagnostic:
    """The diagnostic for a fault: the first slip of the table that fits, else what was expected and
    what was found."""
    for slip in SLIPS if len(fault.before) + len(fault.rest) <= _LONGEST_SLIP else ():
        help = _match(slip, fault)
        if help is not None:
            return finding(slip.code, slip.message, fault.span, help=help if help else ())
    found = _found(fault)
    expected = _expected(fault.expected)
    if fault.expected or not fault.rest:
        return finding("E0101", f"expected {expected}, found {found}", fault.span, f"expected {expected}")
    return finding("E0102", f"unexpected character {found}", fault.span)


def _match(slip: Slip, fault: Fault) -> str | None:
    """The help text, maybe empty, if the slip fits; else None."""
    if slip.form and slip.form != fault.form:
        return None
    if (slip.inside and slip.inside != fault.inside) or (slip.expected and slip.expected not in fault.expected):
        return None
    before = re.search(slip.before, fault.before)
    rest = re.match(slip.rest, fault.rest)
    if before is None or rest is None:
        return None
    groups = {**before.groupdict(default=""), **rest.groupdict(default="")}
    return slip.help.format(**groups) if groups or "{{" in slip.help else slip.help


def _found(fault: Fault) -> str:
    text = fault.span.text
    if text == ";":
        return "`;`"
    if not text.strip():
        return "the end of the line"
    return f"`{text if len(text) <= 40 else text[:39] + '…'}`"


def _expected(terminals: frozenset[str]) -> str:
    """What could have stood at a fault, in words."""
    if terminals >= {"LET", "NAME", "STAR"}:
        return "a statement"
    rest = terminals
    words = []
    if "NUMBER" in terminals and "NAME" in terminals:
        words.append("an expression")
        rest = rest - _EXPRESSION
    elif rest - _OPERATORS:
        rest = rest - _OPERATORS
    words += [word for terminal, word in _WORDS.items() if terminal in rest]
    if not words:
        return "the end of the statement" if "_END" in terminals else "the end of the text"
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
