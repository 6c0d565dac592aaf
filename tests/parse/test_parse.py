"""Texts and their trees: the cases are in syntax.txt, each a title, a recipe, `---` and one line a
statement."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mergec.grammar import ast
from mergec.grammar.diagnostic import MergecError
from mergec.grammar.parse import parse
from mergec.grammar.scan import MAX_DEPTH, MAX_ERRORS
from mergec.grammar.source import Source
from profiles import examples
from syntax_trees import sketch

CASES = re.split(r"(?m)^(?=# )", (Path(__file__).parent / "syntax.txt").read_text("utf-8"))[1:]
README_RECIPE = """\
# chat + math on a shared base
let base = model("meta-llama/Llama-3.2-1B")
let a    = model("acme/llama-1b-chat", revision="9f2c1e")
let b    = model("./math-1b")

output(like=base, dtype="bfloat16", tokenizer=a)

*             = ties(a, b, base=base, density=0.5)          # every tensor, unless a later line says otherwise
layers[0..15] = ties(a, b, base=base, density=0.3 + 0.4*depth, weight=[0.6, 0.4])
layers[*].mlp = slerp(a, b, t=curve([0, 0.5, 0.3, 0.7, 1]))
norm          = a
head          = tie(embed)
"""


def _errors(text: str) -> list[tuple[str, str]]:
    """Code and underlined text of every syntax error."""
    with pytest.raises(MergecError) as caught:
        parse(Source("recipe.mrg", text))
    return [(each.code, each.labels[0].span.text) for each in caught.value.diagnostics]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.partition("\n")[0][2:])
def test_syntax(case: str) -> None:
    text, _, expected = case.partition("\n")[2].partition("\n---\n")
    module = parse(Source("recipe.mrg", text))
    assert "\n".join(map(sketch, module.statements)) == expected.strip()


@pytest.mark.parametrize("text", [README_RECIPE, README_RECIPE.replace("\n", "\r\n"), "\ufeff" + README_RECIPE])
def test_a_whole_recipe(text: str) -> None:
    module = parse(Source("recipe.mrg", text))
    assert len(module.statements) == 9
    assert [each.text for each in module.comments] == [
        "# chat + math on a shared base",
        "# every tensor, unless a later line says otherwise",
    ]
    assert [each.span.text for each in module.comments] == [each.text for each in module.comments]
    assert module.statements[4].span.text.startswith("*             = ties(a, b, base=base, density=0.5)")


def test_spans_are_exact() -> None:
    text = "# first\nlet x = (a + (b)) * f(c,  # why\n  *d, t = -1).e[0 .. 3 by 2]\n"
    (let,) = parse(Source("recipe.mrg", text)).statements
    assert isinstance(let, ast.Let)
    assert let.span.text == text[8:-1]
    product = let.value
    assert isinstance(product, ast.Binary)
    assert product.left.span.text == "a + (b)"
    index = product.right
    assert isinstance(index, ast.Index)
    assert index.selectors[0].span.text == "0 .. 3 by 2"
    assert index.object.span.text == "f(c,  # why\n  *d, t = -1).e"
    call = index.object.object  # type: ignore[union-attr]
    assert [each.span.text for each in call.arguments] == ["c", "*d", "t = -1"]  # type: ignore[union-attr]


def test_every_error_of_a_text_is_found() -> None:
    text = """\
let a = model("x)
let b = 3 4
let c = f(
  1,
let d = [1, 2)
head = "\\q" + 1e999
use lib
f(a) = b
let good = 1
"""
    assert _errors(text) == [
        ("E0104", '"x)'),
        ("E0101", "4"),
        ("E0103", "("),
        ("E0103", ")"),
        ("E0105", "\\q"),
        ("E0106", "1e999"),
        ("E0101", "lib"),
        ("E0108", "f(a)"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("let x = (", [("E0103", "(")]),
        ("let x = )", [("E0103", ")")]),
        ("let x = f([a)", [("E0103", ")")]),
        ('let x = """a', [("E0104", '"""')]),
        ('let x = f("a)\nlet y 1', [("E0104", '"a)'), ("E0101", "1")]),
        ('let x = "\\u12"', [("E0105", "\\u")]),
        ('let x = "\\ud800"', [("E0105", "\\ud800")]),
        ('let x = """\r\n\\q"""', [("E0105", "\\q")]),
        ("let x = 1e-999", [("E0106", "1e-999")]),
        ("let x = 18446744073709551616", [("E0106", "18446744073709551616")]),
        ("let if = 1", [("E0110", "if")]),
        ("let output = 1", [("E0110", "output")]),
        ("true = a", [("E0110", "true")]),
        ("def f(for) = 1", [("E0110", "for")]),
        ("let x = [1 for in in xs]", [("E0110", "in")]),
        ("output(base)", [("E0112", "base")]),
        ("let x = f(a=1, b)", [("E0112", "b")]),
        ("let x = a\x00", [("E0102", "\x00")]),
    ],
)
def test_codes(text: str, expected: list[tuple[str, str]]) -> None:
    assert _errors(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "let x = " + "(" * 100_000 + "1" + ")" * 100_000,
        "let x = " + "[" * 5_000 + "]" * 5_000,
        "let x = " + "-" * 5_000 + "1",
        "let x = " + "not " * 5_000 + "1",
        "let x = a" + " + a" * 5_000,
        "let x = 1" + " ** 1" * 5_000,
        "let x = a" + ".b" * 5_000,
        "let x = " + "a if b else " * 5_000 + "c",
        "let x = " + "f(" * 5_000,
    ],
    ids=lambda text: text[:20],
)
def test_nesting_is_bounded(text: str) -> None:
    limit = sys.getrecursionlimit()
    assert _errors(text)[0][0] == "E0107"
    assert sys.getrecursionlimit() == limit


def test_nesting_within_the_bound() -> None:
    parse(Source("recipe.mrg", "let x = " + "(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH))
    parse(Source("recipe.mrg", "let x = a" + " + a" * MAX_DEPTH))
    parse(Source("recipe.mrg", "let x = f(" + "a, " * 3_000 + ")"))


def test_at_most_so_many_errors() -> None:
    assert len(_errors("let x 1\n" * 1_000)) == MAX_ERRORS
    assert len(_errors("let x = (\n" * 1_000)) == MAX_ERRORS


_WORDS = [
    "let ",
    "def ",
    "use ",
    "output",
    "expect ",
    " if ",
    " else ",
    " for ",
    " in ",
    " by ",
    "not ",
    "x",
    "1",
    "0.5",
]
_SIGNS = ['"s"', '"', '"""', "'", "#", "\n", ";", " ", "\t", "..", "**", "==", "é", "\x1b", *"()[]{}=+-*/.,:<>!&^\\"]


def _check(text: str) -> None:
    try:
        parse(Source("fuzz.mrg", text))
    except MergecError as error:
        spans = [each.labels[0].span for each in error.diagnostics]
    else:
        return
    assert spans
    assert all(0 <= each.start <= each.end <= len(text) for each in spans)


@examples(300)
@given(st.lists(st.sampled_from(_WORDS + _SIGNS), max_size=40).map("".join))
def test_any_words_parse_or_are_diagnosed(text: str) -> None:
    for whole in (text, f"let x = {text}", f"{text} = x"):
        _check(whole)


@examples(100)
@given(st.text(max_size=60))
def test_any_characters_parse_or_are_diagnosed(text: str) -> None:
    _check(text)
