r"""What is said about a text that doesn't parse: a table of slips, each with broken samples that
show it.

A slip is recognised by the text around the fault, not by a parser state, so the table survives
changes of the grammar; the samples are its test (tests/parse/test_syntax_errors.py). The first
entry that fits is used; where none does, `complaints.py` makes the message of what the grammar
would have accepted.
"""

from __future__ import annotations

from .records import dataclass


@dataclass(frozen=True, slots=True)
class Slip:
    """One entry: all conditions that are not empty must hold, each on the part of a `Fault` of the
    same name.

    `before` is searched for, `rest` matched at the fault, `expected` is one terminal. `help` may
    use the named groups of both patterns.
    """

    code: str
    message: str
    samples: tuple[str, ...]
    before: str = ""
    rest: str = ""
    inside: str = ""
    expected: str = ""
    form: str = ""
    help: str = ""


_OPERAND_END = r"[\w\"\])}]\s*$"
_OPERAND_START = r"[\w\"(\[{]"
_LINE_OF_BLOCK = r"^\s*def\b[^{]*\{([\s\S]*[;\n])?\s*"

SLIPS = (
    # --- words and signs of other languages
    Slip(
        "E0109",
        "there are no loops",
        ("for x in xs", "while a < b { x }", "for i in 0..15: layers[i] = a"),
        before=r"^\s*(for|while)\s*$",
        rest=r"\w",
        help="`layers[*] = …` covers every layer, and `[f(x) for x in xs]` makes a list",
    ),
    Slip(
        "E0109",
        "`if` doesn't begin a statement",
        ("if a { head = b }", "if depth < 1: norm = a"),
        before=r"^\s*if\s*$",
        rest=r"[\w\"]",
        help="a value is chosen inside an expression: `head = a if condition else b`",
    ),
    Slip(
        "E0109",
        "`import` doesn't begin a statement",
        ('import "lib.mrg"', 'include "lib.mrg"', "import lib"),
        before=r"^\s*(import|include)\s*$",
        help='another file is brought in with `use "lib.mrg"`',
    ),
    Slip(
        "E0109",
        "a function is defined with `def`",
        ("function f(x) = x", "fn f(x) = x", "func f(x) { x }"),
        before=r"^\s*(function|func|fn)\s*$",
        rest=r"\w",
        help="for instance `def half(a, b) = a / 2 + b / 2`",
    ),
    Slip(
        "E0109",
        "a value is named with `let`",
        ("var x = 3", "const x = 3"),
        before=r"^\s*(var|const|set)\s*$",
        rest=r"(?P<name>\w+)",
        help="`let {name} = …`",
    ),
    Slip(
        "E0109",
        "functions have no `return`",
        ("def f(x) { return x }", "def f(x) {\n  let y = x\n  return y\n}"),
        before=r"\breturn\s*$",
        rest=r"[\w\"(-]",
        help="the value of a block is its last line, without a word before it",
    ),
    Slip(
        "E0101",
        "there are no functions without a name",
        ("let f = lambda x: x", "head = apply(lambda a, b: a)"),
        before=r"\blambda\s*$",
        rest=r"\w",
        help="define it: `def name(x) = …`",
    ),
    Slip(
        "E0101",
        "there are no functions without a name",
        ("head = apply(lambda: a)",),
        before=r"\blambda\s*$",
        rest=":",
        help="define it: `def name() = …`",
    ),
    Slip(
        "E0101",
        "`:=` is not an operator",
        ("let x := 3", "head := a", "let y = (x := 3)"),
        rest=":=",
        help="a value is given with `=`",
    ),
    Slip(
        "E0101",
        "`=` can't be combined with an operator",
        ("head += a", "norm *= 2", "head -= b"),
        rest=r"(\*\*|//|[-+*/])=",
        before=r"^[^=]*$",
        help="nothing is changed in place: write the whole value after `=`",
    ),
    Slip("E0102", "`&&` is not an operator", ("let x = a && b",), rest="&&", help="it is written `and`"),
    Slip("E0102", "`||` is not an operator", ("let x = a || b",), rest=r"\|\|", help="it is written `or`"),
    Slip("E0102", "`!` is not an operator", ("let x = !a",), rest="!", help="it is written `not`"),
    Slip("E0102", "`^` is not an operator", ("let x = a ^ 2",), rest=r"\^", help="a power is written `**`"),
    Slip("E0102", "`%` is not an operator", ("let x = 5 % 2",), rest="%"),
    Slip(
        "E0102",
        "`?` is not an operator",
        ("let x = c ? a : b",),
        rest=r"\?",
        help="a choice is written `a if condition else b`",
    ),
    Slip(
        "E0101",
        "`//` is not an operator",
        ("let x = a // b",),
        before=r"/$",
        rest="/",
        help="a comment begins with `#`",
    ),
    Slip(
        "E0101",
        "`//` doesn't begin a comment",
        ("// a comment", "let a = 1; // a comment"),
        before=r"^\s*$",
        rest="//",
        help="a comment begins with `#`",
    ),
    Slip(
        "E0101",
        "`**` is not allowed here",
        ("let x = f(**options)",),
        rest=r"\*\*",
        inside="(",
        expected="STAR",
        help="a list is spread with `*`; settings are written one by one",
    ),
    Slip(
        "E0102",
        "a string is written with double quotes",
        ("let a = model('x')", "use 'lib.mrg'", "let s = 'it"),
        rest=r"'(?P<text>[^'\n\\\"]*)'?",
        help='`"{text}"`',
    ),
    Slip(
        "E0102",
        "a string is written with straight quotes",
        ("let a = model(“x”)", "let a = model(‘x’)"),
        rest=r"[“”„«‘](?P<text>[^“”„«»‘’\n\\\"]*)",
        help='`"{text}"`',
    ),
    Slip(
        "E0102",
        "a range is written with `..`",
        ("layers[0–3] = a", "let x = a.layers[2 — 4, 7]", "layers[0~3].mlp = a", "layers[0…3] = a"),
        before=r"\w\[\s*(.*,\s*)?(?P<low>-?\w+)\s*$",
        rest=r"[−–—~…]\s*(?P<high>-?\w+)",
        inside="[",
        help="`{low}..{high}`, both ends included",
    ),
    Slip("E0102", "this is not the minus sign `-`", ("let x = a − b", "let x = –1"), rest="[−–—]", help="write `-`"),
    Slip("E0102", "this is not a plain space", ("let\u00a0x = 3",), rest=r"[^\S\n]", help="write an ordinary space"),
    Slip(
        "E0102",
        "`\\` doesn't continue a line",
        ("let x = a + \\\n b",),
        rest=r"\\",
        help="inside `( )` an expression may go on over lines",
    ),
    Slip(
        "E0102",
        "names are of plain letters, digits and `_`",
        ("let café = 3", "let größe = 1"),
        rest=r"[^\W\d_a-zA-Z]",
        help="text in other letters goes into a string",
    ),
    # --- ranges, numbers, comparisons
    Slip(
        "E0101",
        "a range is written with `..`",
        ("layers[0:15] = a", "layers[:8] = a", "layers[8:] = a", "let x = a.layers[2 : n]"),
        before=r"\[\s*(.*,\s*)?(?P<low>-?\w*)\s*$",
        rest=r":\s*(?P<high>-?\w*)",
        inside="[",
        help="`{low}..{high}`, both ends included",
    ),
    Slip(
        "E0101",
        "a range is written with `..`",
        ("layers[0 to 3] = a", "let x = a.layers[2, 4 to 7]", "layers[0->3] = a"),
        before=r"\w\[\s*(.*,\s*)?(?P<low>\d+)\s*-?$",
        rest=r"(to\b|>)\s*(?P<high>\d+)",
        inside="[",
        help="`{low}..{high}`, both ends included",
    ),
    Slip(
        "E0101",
        "a range includes both ends",
        ("layers[0..=3] = a", "let x = a.layers[2, 4..<7]"),
        before=r"\w\[\s*(.*,\s*)?(?P<low>-?\w+)\s*\.\.\s*$",
        rest=r"[=<]\s*(?P<high>-?\w+)",
        inside="[",
        help="`0..3` is 0, 1, 2 and 3",
    ),
    Slip(
        "E0101",
        "a range goes in steps with `by`",
        ("layers[0..8..2] = a", "let x = a.layers[0..8:2]"),
        before=r"\w\[\s*(.*,\s*)?(?P<low>-?\w+)\s*\.\.\s*(?P<high>-?\w+)\s*$",
        rest=r"(\.\.|:)\s*(?P<step>\w+)",
        inside="[",
        help="`{low}..{high} by {step}`, both ends included",
    ),
    Slip(
        "E0101",
        "a range has two dots",
        ("layers[0...15] = a",),
        before=r"\.\.$",
        rest=r"\.",
        help="`0..15`, both ends included",
    ),
    Slip(
        "E0101",
        "a range can't stand outside `[ ]` after a name",
        ("let x = 0..15", "head = f(0..3)"),
        rest=r"\.\.",
        help="a list of numbers is written `[0, 1, 2]`",
    ),
    Slip(
        "E0101",
        "an index is missing",
        ("layers[] = a", "let x = a.layers[]"),
        before=r"\[\s*$",
        rest=r"\]",
        help="`[*]` for all, `[0..3]` for the first four, `[-1]` for the last",
    ),
    Slip(
        "E0101",
        "a number can't begin with a dot",
        ("let x = .5", "head = slerp(a, b, t=.5)"),
        rest=r"(?P<number>\.\d+)",
        help="`0{number}`",
    ),
    Slip(
        "E0101",
        "a number can't end with a dot",
        ("let x = 1.", "head = slerp(a, b, t=1.)"),
        before=r"(?<![\w.])(?P<number>\d+)\.$",
        help="`{number}.0`",
    ),
    Slip(
        "E0101",
        "a name can't begin with a digit",
        ("let 2x = 3", "let x = 7b"),
        rest=r"\d[\d_]*[A-Za-z]",
        expected="NAME",
        before=r"^\s*(let|def)\s*$",
    ),
    Slip(
        "E0101",
        "a name can't begin with a digit",
        ("let x = 7b", "head = 2nd"),
        before=r"(?<![\w.])\d+$",
        rest=r"[A-Za-z_]",
    ),
    Slip(
        "E0111",
        "comparisons can't be chained",
        ("expect 0 < x < 1", "let y = a == b == c", "let y = f(0 <= x <= 1)"),
        before=r"[<>]|[=!]=",
        rest=r"[<>=!]=|[<>]",
        help="join two with `and`: `a < b and b < c`",
    ),
    Slip(
        "E0101",
        "expected `=`, found `==`",
        ("let x == 3", "head == a", "layers[0..3].attn == b"),
        before=r"^\s*(let\s+)?[\w.\[\]*, \"-]*$",
        rest="==",
        help="a value is given with `=`",
    ),
    Slip(
        "E0101",
        "there is no `in` operator",
        ("let x = a in xs",),
        rest=r"in\b",
        before=_OPERAND_END,
    ),
    Slip(
        "E0101",
        "expected `else`",
        ("head = a if layer < 3", "head = f(a if x, b)"),
        before=r"\bif\b",
        rest=r"(?!=)",
        expected="_ELSE",
        help="both values are needed: `a if condition else b`",
    ),
    # --- statements
    Slip(
        "E0101",
        "expected a name after `let`",
        ("let = 3", 'let "x" = 3', "let"),
        before=r"^\s*let\s*$",
        help="`let name = …`",
    ),
    Slip(
        "E0101",
        "a type can't be given here",
        ("let x: number = 3",),
        before=r"^\s*let\s+(?P<name>\w+)\s*$",
        rest=":",
        help="`let {name} = …`",
    ),
    Slip(
        "E0101",
        "`let` names one value",
        ("let x, y = pair", 'let a.b = model("x")', "let xs[0] = 1"),
        before=r"^\s*let\s+\w+\s*$",
        rest=r"[,.\[]",
    ),
    Slip(
        "E0101",
        "expected `=` after the name",
        ("let x 3", "let x", "def f() {\n  let x 3\n  x\n}"),
        before=r"\blet\s+(?P<name>\w+)\s*$",
        help="`let {name} = …`",
    ),
    Slip(
        "E0101",
        "expected the parameters in `( )` after the name",
        ("def f = 3", "def f x = 3"),
        before=r"^\s*def\s+(?P<name>\w+)\s*$",
        help="`def {name}(x) = …`",
    ),
    Slip(
        "E0101",
        "expected a name after `def`",
        ("def (x) = 3", "def"),
        before=r"^\s*def\s*$",
        help="`def name(x) = …`",
    ),
    Slip(
        "E0109",
        "a block follows the parameters without `=`",
        ("def f(x) = { let y = x; y }", "def f(x) = {\n  let y = x\n  y\n}"),
        before=r"^\s*def\b[^{]*=\s*\{\s*(let|expect)\s*$",
        help="`def name(x) { … }`",
    ),
    Slip(
        "E0101",
        "expected `=` or `{` after the parameters",
        ("def f(x)", "def f(x): x", "def f(x)\n{ x }", "def f(x) -> x"),
        before=r"^\s*def\s+\w+\s*\([^()]*(\([^()]*\)[^()]*)*\)\s*$",
        help="`def name(x) = …`, or `def name(x) {` with the block's first line below",
    ),
    Slip(
        "E0109",
        "a block must end with a value",
        ("def f(x) {\n  let y = x\n}", "def f(x) { }", 'def f(x) { expect x > 0, "positive"; }'),
        before=_LINE_OF_BLOCK + r"$",
        rest=r"\}",
        help="the last line is an expression: what the function gives back",
    ),
    Slip(
        "E0109",
        "this statement can't stand in a block",
        (
            "def f(x) { let y = x; use 3; y }",
            "def f(x) {\n  output(dtype=x)\n  x\n}",
            "def f(x) { def g(y) = y; g(x) }",
        ),
        before=_LINE_OF_BLOCK + r"((use|def)\s+)?$",
        rest=r"[\w\"]",
        help="a block has `let` and `expect` lines, then one value",
    ),
    Slip(
        "E0109",
        "a place can't get a value inside a function",
        ("def f(x) {\n  head = x\n  x\n}", "def f(x) { y = x; y }"),
        before=_LINE_OF_BLOCK + r"[\w.]+\s*$",
        rest=r"=(?!=)",
        help="a name is given to a value with `let name = …`",
    ),
    Slip(
        "E0101",
        "expected a file name in quotes",
        ("use lib", "use lib.mrg", "use"),
        before=r"^\s*use\s*$",
        help='`use "lib.mrg"`',
    ),
    Slip(
        "E0101",
        "expected `(` after `output`",
        ("output = a", "output dtype=3", "output"),
        before=r"^\s*output\s*$",
        help='`output(like=base, dtype="bfloat16")`',
    ),
    Slip(
        "E0101",
        "the message of `expect` must be a string",
        ("expect a == b, c", "expect a == b,"),
        before=r"^\s*expect\b.*,\s*$",
        expected="STRING",
    ),
    Slip(
        "E0101",
        "this is a configuration of mergekit and no recipe",
        ("merge_method: linear", "base_model: ./base", "slices:", "models:"),
        before=r"^(merge_method|base_model|slices|models|modules)\s*$",
        rest=":",
        expected="_EQUALS",
        help="give its file the ending `.yml`, and it is merged as it is; `mergec import` makes a recipe of it",
    ),
    Slip(
        "E0101",
        "expected `=` after the place",
        ("head", "layers[0..3].attn", '"*.bias"', "*", "head a", "head: a"),
        before=r"^\s*(\*|\"[^\"]*\"|\w[^=(]*)\s*$",
        rest=r"[\n;:\w\"]|$",
        expected="_EQUALS",
        help="`PLACE = …` gives a value to a part of the output",
    ),
    Slip(
        "E0108",
        "this is not a place",
        ("f(x) = 3", "a + b = c", "3 = x", "layers[0..3].mlp() = a", "[head, norm] = a", "-x = 3"),
        form="assignment",
        help="a place is a path such as `layers[0..3].attn`, a glob in quotes, or `*`",
    ),
    Slip(
        "E0109",
        "an expression alone does nothing",
        ("ties(a, b)", "a + b", "3", "[1, 2]"),
        form="expression",
        help="name it with `let name = …`, or give it to a part of the output with `* = …`",
    ),
    Slip(
        "E0101",
        "expected `==`, found `=`",
        ("expect params = 3", "let x = 1 if a = b else 2", "let x = (a = b)"),
        before=r"^\s*expect\b|\bif\b|\([^,]*$",
        rest="=",
        help="a comparison is written `==`",
    ),
    # --- brackets
    Slip(
        "E0101",
        "an argument's name is followed by `=`",
        ("head = ties(a, density: 0.5)", "output(dtype: x)"),
        before=r"[(,]\s*(?P<name>\w+)\s*$",
        rest=":",
        inside="(",
        help="`{name}=…`",
    ),
    Slip(
        "E0101",
        "a key is followed by `:`",
        ("let m = {attn = 0.3}", "let m = {mlp.gate: 1, attn = 0.3}"),
        rest="=",
        inside="{",
        help="`{{key: value}}`",
    ),
    Slip(
        "E0101",
        "a name is missing before `=`",
        ("head = f(a, =3)",),
        before=r"[(,]\s*$",
        rest="=",
        inside="(",
    ),
    Slip(
        "E0101",
        "a comma is missing",
        (
            "head = ties(a b)",
            "let xs = [1 2]",
            "let m = {a: 1 b: 2}",
            'head = f("x" y=3)',
            "layers[0 1] = a",
            "def f(a b) = a",
        ),
        before=_OPERAND_END,
        rest=_OPERAND_START,
        expected="COMMA",
        help="put `,` between the two",
    ),
    Slip(
        "E0101",
        "there are no tuples",
        ("let pair = (1, 2)", "head = f((a, b))"),
        before=r"(^|[^\w)\]\s])\s*\([^()]*$",
        rest=",",
        inside="(",
        help="a list is written `[a, b]`",
    ),
    Slip(
        "E0101",
        "two commas in a row",
        ("head = f(a,, b)", "let xs = [1, , 2]"),
        before=r",\s*$",
        rest=",",
    ),
    # --- where statements end
    Slip(
        "E0101",
        "expected an expression, found the end of the line",
        ("let x = a +", "head = a *\n  b", "let x = not", "let x = a if b else\n  c"),
        before=r"([-+*/<>]|[=!<>]=|\b(and|or|not|if|else))\s*$",
        rest=r"[\n;]|$",
        expected="NUMBER",
        help="inside `( )` an expression may go on over lines",
    ),
    Slip(
        "E0101",
        "two statements on one line",
        ("let x = 3 let y = 4", "head = a norm = b", "head = f(a) use 3"),
        before=_OPERAND_END,
        rest=r"(let|def|use|expect|output)\b|[\w.]+(\[[^\]]*\])?\s*=(?!=)",
        expected="_END",
        help="put `;` or a line end between them",
    ),
)
