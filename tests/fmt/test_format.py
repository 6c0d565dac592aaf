"""The formatter: text cases, and what must hold for any recipe."""

from __future__ import annotations

import errno
import os
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mergec.cli.commands import fmt
from mergec.cli.formatter.format import format_expression, format_module
from mergec.cli.main import main
from mergec.cli.terminal.atomic_file import write_atomically
from mergec.grammar import ast
from mergec.grammar.diagnostic import MergecError
from mergec.grammar.parse import parse
from mergec.grammar.source import Source, Span
from mergec.runtime.catalog.recipes import decode_recipe
from profiles import examples
from recipe_texts import respelled
from syntax_trees import plain

ROOT = Path(__file__).resolve().parents[2]
CASES = re.split(r"(?m)^(?===== )", (Path(__file__).parent / "format.txt").read_text("utf-8"))[1:]
NOWHERE = Span(Source("made", ""), 0, 0)


def _format(text: str) -> str:
    return format_module(parse(Source("recipe.mrg", text)))


def _comments(text: str) -> list[str]:
    return sorted(each.text for each in parse(Source("recipe.mrg", text)).comments)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.partition("\n")[0].strip("= "))
def test_case(case: str) -> None:
    text, _, expected = case.partition("\n")[2].partition("\n---\n")
    expected = expected.rstrip("\n") + "\n"
    assert _format(text) == expected
    assert _format(expected) == expected


def test_nothing_makes_nothing() -> None:
    assert _format("") == _format("\n\n ;\n") == ""
    assert _format("# only\n\n\n") == "# only\n"


def test_an_expression_on_one_line() -> None:
    text = "f(" + ", ".join(["a" * 30] * 9) + ")"
    (let,) = parse(Source("r", "let x = " + text.replace(", ", ",\n"))).statements
    assert isinstance(let, ast.Let)
    assert format_expression(let.value) == text


# --- any tree -------------------------------------------------------------------------------------

_names = st.sampled_from(["a", "b", "base", "layers", "depth", "long_name_" * 3])
_numbers = st.one_of(
    st.integers(0, 2**64 - 1),
    st.floats(0, allow_nan=False, allow_infinity=False),
).map(lambda value: ast.Number(value, NOWHERE))
_strings = st.text(st.characters(exclude_categories=("Cs",)), max_size=8).map(lambda value: ast.String(value, NOWHERE))
_leaves = st.one_of(
    _numbers,
    _strings,
    st.booleans().map(lambda value: ast.Boolean(value, NOWHERE)),
    st.just(ast.NoneLiteral(NOWHERE)),
    _names.map(lambda name: ast.Name(name, NOWHERE)),
)


def _tuples(items: st.SearchStrategy[object], least: int = 0) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(items, min_size=least, max_size=4).map(tuple)


def _selectors(inner: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Selector]:
    maybe = st.none() | inner
    return st.one_of(
        st.builds(ast.Item, inner, st.just(NOWHERE)),
        st.builds(ast.Range, maybe, maybe, maybe, st.just(NOWHERE)),
        st.just(ast.All(NOWHERE)),
    )


_places = st.recursive(
    _names.map(lambda name: ast.Name(name, NOWHERE)),
    lambda inner: st.one_of(
        st.builds(ast.Member, inner, st.sampled_from(["attn", "0", "let", "for"]), st.just(False), st.just(NOWHERE)),
        st.builds(ast.Member, inner, st.sampled_from(["*.bias", 'a"b']), st.just(True), st.just(NOWHERE)),
        st.builds(ast.Index, inner, _tuples(_selectors(_leaves), 1), st.just(NOWHERE)),
    ),
    max_leaves=4,
)
_tops = _places | _strings | st.just(ast.Star(NOWHERE))


def _arguments(inner: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[tuple[ast.Argument, ...]]:
    here = st.just(NOWHERE)
    first = _tuples(st.builds(ast.Argument, st.none(), st.booleans(), inner, here))
    second = _tuples(st.builds(ast.Argument, _names, st.just(False), inner, here))
    return st.tuples(first, second).map(lambda pair: pair[0] + pair[1])


def _deeper(inner: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Expr]:
    here = st.just(NOWHERE)
    operators = st.sampled_from(["+", "-", "*", "/", "**", "<", "<=", ">", ">=", "==", "!=", "and", "or"])
    names = _names.map(lambda name: ast.Name(name, NOWHERE))
    return st.one_of(
        st.builds(ast.Unary, st.sampled_from(["-", "+", "not"]), inner, here),
        st.builds(ast.Binary, operators, inner, inner, here),
        st.builds(ast.Binary, operators, inner, inner, here),
        st.builds(ast.Conditional, inner, inner, inner, here),
        st.builds(ast.ListExpr, _tuples(inner), here),
        st.builds(ast.MapExpr, _tuples(st.builds(ast.MapEntry, _tops, inner, here)), here),
        st.builds(ast.Call, inner, _arguments(inner), here),
        st.builds(ast.Comprehension, inner, _tuples(names, 1), inner, here),
        st.builds(ast.Member, inner, st.sampled_from(["attn", "0"]), st.just(False), here),
        st.builds(ast.Index, inner, _tuples(_selectors(inner), 1), here),
    )


_expressions = st.recursive(_leaves, _deeper, max_leaves=12)
_kinds = st.builds(
    ast.Kind,
    st.sampled_from(["number", "region"]),
    st.none() | st.floats(-10, 0),
    st.none() | st.floats(0.1, 1e9),
    st.just(NOWHERE),
)
_lets = st.builds(ast.Let, _names.map(lambda name: ast.Name(name, NOWHERE)), _expressions, st.just(NOWHERE))
_expects = st.builds(ast.Expect, _expressions, st.none() | _strings, st.just(NOWHERE))
_parameters = st.builds(
    ast.ParameterDeclaration,
    _names.map(lambda name: ast.Name(name, NOWHERE)),
    st.none() | _kinds,
    st.none() | _expressions,
    st.just(False),
    st.just(NOWHERE),
)
_blocks = st.one_of(
    st.builds(ast.Block, st.just(()), _expressions, st.just(False), st.just(NOWHERE)),
    st.builds(ast.Block, _tuples(_lets | _expects), _expressions, st.just(True), st.just(NOWHERE)),
)
_statements = st.one_of(
    _lets,
    _expects,
    st.builds(ast.Assign, _tops, _expressions, st.just(NOWHERE)),
    st.builds(ast.Use, _strings, st.none() | _names.map(lambda name: ast.Name(name, NOWHERE)), st.just(NOWHERE)),
    st.builds(
        ast.OutputStatement,
        _tuples(st.builds(ast.Argument, _names, st.just(False), _expressions, st.just(NOWHERE))),
        st.just(NOWHERE),
        st.just(NOWHERE),
    ),
    st.builds(
        ast.Def, _names.map(lambda name: ast.Name(name, NOWHERE)), _tuples(_parameters), _blocks, st.just(NOWHERE)
    ),
)


@examples(100)
@given(_tuples(_statements))
def test_what_is_written_reads_back_as_the_same_tree(statements: tuple[ast.Statement, ...]) -> None:
    text = format_module(ast.Module(NOWHERE.source, statements, ()))
    read = parse(Source("recipe.mrg", text))
    assert plain(read.statements) == plain(statements)
    assert format_module(read) == text


# --- any text with comments -----------------------------------------------------------------------

# Within brackets a line may end, with or without a comment, between any two words.
_inside = st.sampled_from(["", " ", "  # c{}\n", "\n# c{}\n", "\n\n", "\n    "])
_between = st.sampled_from(["\n", ";", "\n\n\n", "  # c{}\n", "\n# c{}\n\n# c{}\n", "; # c{}\n"])
_bracketed = st.sampled_from(
    [
        "x = f(~a~,~ b~.~c ~, t~=~[~1~,~2~,~]~,~ )",
        "let y = (~a ~+~ (~b~)~ * -~ c~[~0~..~3~ by ~2~,~*~]~)",
        "let m = {~attn~:~ 0.3~,~mlp.gate~:~(~1~)~,~}",
        "output(~like~=~base~,~config~=~{~}~)",
        "def g(~p~,~ q~:~number~(~0~..~1~)~=~1~,~*~r~) = (~p~)",
        "z = [~e ~for x~,~ y in ~zip~(~xs~,~ys~)~]",
        "w = f(~)(~)[~-1~]",
        'expect (~a ~==~ b~), "m"',
        "l = ties(~aaaaaaaaaaaaaaaaaaaaaaaaaa~, bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb~, t=cccccccccccccccccc~)",
    ]
)
_plain_statements = st.sampled_from(["let a = 1", "head = tie(embed)", 'use "lib.mrg" as ns'])


@st.composite
def _commented(draw: st.DrawFn) -> str:
    """A recipe with comments and line ends wherever the language lets them stand."""

    def statement(pattern: str) -> str:
        return "".join(part + draw(_inside) for part in pattern.split("~")[:-1]) + pattern.split("~")[-1]

    def several(strategy: st.SearchStrategy[str]) -> str:
        return "".join(statement(each) + draw(_between) for each in draw(st.lists(strategy, max_size=4)))

    text = several(_plain_statements | _bracketed)
    if draw(st.booleans()):
        lets = _bracketed.filter(lambda each: each.startswith(("let", "expect")))
        text += "def h(~)".replace("~", draw(_inside)) + " {" + draw(_between) + several(lets)
        text += draw(_plain_results) + draw(_between) + "}" + draw(_between)
    return _numbered(text)


_plain_results = st.sampled_from(["a", "a + b", "f(a,\n # c{}\n b)"])


def _numbered(text: str) -> str:
    count = iter(range(1_000))
    return re.sub(r"c\{\}", lambda _: f"comment {next(count)}", text)


@examples(300)
@given(_commented())
def test_comments_stay_and_a_second_time_changes_nothing(text: str) -> None:
    once = _format(text)
    assert _format(once) == once
    assert _comments(once) == _comments(text)
    read, again = parse(Source("recipe.mrg", text)), parse(Source("recipe.mrg", once))
    assert plain(read.statements) == plain(again.statements)
    assert "\n\n\n" not in once
    assert once == "" or once[-1] == "\n" != once[0]


# --- recipes spelled in any way -------------------------------------------------------------------


@st.composite
def _spelled(draw: st.DrawFn) -> str:
    """Statements of any kind, texts of several lines in them, in any spelling with comments
    everywhere."""
    random = draw(st.randoms(use_true_random=False))
    text = format_module(ast.Module(NOWHERE.source, draw(st.lists(_statements, max_size=3).map(tuple)), ()))
    return respelled(text, random, draw(st.sampled_from([0.05, 0.3, 0.7])), long=draw(st.booleans()))


@examples(150)
@given(_spelled())
def test_any_spelling_keeps_its_meaning_and_its_comments_and_a_second_time_changes_nothing(text: str) -> None:
    read = parse(decode_recipe("recipe.mrg", text.encode()))
    once = format_module(read)
    again = parse(Source("recipe.mrg", once))
    assert plain(again.statements) == plain(read.statements)
    assert sorted(c.text for c in again.comments) == sorted(c.text for c in read.comments)
    assert format_module(again) == once


LIBRARY = [*(ROOT / "stdlib").glob("*.mrg"), *(ROOT / "examples").glob("*.mrg")]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.name)
def test_the_recipes_that_are_there_in_other_spellings(path: Path) -> None:
    read = parse(Source(path.name, path.read_text("utf-8")))
    bare = path.read_text("utf-8")
    for comment in reversed(read.comments):
        bare = bare[: comment.span.start] + bare[comment.span.end :]
    for seed in range(3):
        spelled = parse(decode_recipe(path.name, respelled(bare, random.Random(seed), 0.2 * seed + 0.05).encode()))
        assert plain(spelled.statements) == plain(read.statements)
        once = format_module(spelled)
        again = parse(Source(path.name, once))
        assert plain(again.statements) == plain(read.statements)
        assert sorted(c.text for c in again.comments) == sorted(c.text for c in spelled.comments)
        assert format_module(again) == once


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["* = b\n", "* = (\n", "* = a\n"])
def test_a_result_that_says_something_else_is_not_written(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.mrg"
    path.write_text("*=a # why\n", "utf-8")
    monkeypatch.setattr(fmt, "format_module", lambda _: broken)
    assert main(["fmt", str(path)]) == 4
    assert "E0114" in capsys.readouterr().err
    assert path.read_text("utf-8") == "*=a # why\n"


def test_a_link_stays_one_and_what_it_leads_to_is_formatted(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path, link = tmp_path / "there" / "r.mrg", tmp_path / "link.mrg"
    path.write_text("*=a\n", "utf-8")
    path.chmod(0o640)
    link.symlink_to(path)
    assert main(["fmt", str(link)]) == 0
    assert link.is_symlink()
    assert (path.read_text("utf-8"), path.stat().st_mode & 0o777) == ("* = a\n", 0o640)


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mrg"
    os.mkfifo(pipe)
    with pytest.raises(MergecError, match="E0610"):
        write_atomically(pipe, "* = a\n")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_nothing_is_left_where_a_file_can_not_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "r.mrg"
    path.write_text("*=a\n", "utf-8")
    path.chmod(0o600)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        with pytest.raises(MergecError, match="E0610"):
            write_atomically(path, "* = a\n")
    assert [(p.name, p.read_text("utf-8")) for p in tmp_path.iterdir()] == [("r.mrg", "*=a\n")]
    write_atomically(path, "* = a\n")
    assert (path.read_text("utf-8"), path.stat().st_mode & 0o777) == ("* = a\n", 0o600)
