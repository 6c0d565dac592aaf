"""Diagnostics as text, to the letter, and as JSON."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from mergec.grammar import render as rendering
from mergec.grammar.diagnostic import Diagnostic, Label, Severity
from mergec.grammar.render import render, to_json
from mergec.grammar.source import Source, Span

SOURCE = Source(
    "re\x1bcipe.mrg",
    'let a = model("x")\n\tx = ties(a, 漢字b)\n\n\n\n\nq = [1,\n  2,\n  3]\nz = \x1b[31m"abc"\n'
    + "w" * 300
    + " = bad\n",
)


def _at(text: str) -> Span:
    start = SOURCE.text.index(text)
    return Span(SOURCE, start, start + len(text))


def test_several_labels_tabs_and_wide_characters() -> None:
    finding = Diagnostic(
        "E0203",
        "no such thing",
        (
            Label(_at("b)"), "right here"),
            Label(_at("ties"), "and this\x07"),
            Label(_at("漢字"), "wide"),
            Label(_at("model"), "from here"),
        ),
        notes=("a note\nin two lines",),
        help=("write `x`",),
    )
    assert (
        render([finding])
        == """\
error[E0203]: no such thing
 --> re\\x1bcipe.mrg:2:16
  |
1 | let a = model("x")
  |         ----- from here
2 |     x = ties(a, 漢字b)
  |         ----    ----^^ right here
  |         |       |
  |         |       wide
  |         and this\\x07
  |
  = note: a note
          in two lines
  = help: write `x`
"""
    )


def test_a_span_over_several_lines_and_a_warning() -> None:
    labels = (Label(_at("[1,\n  2,\n  3]"), "this list"), Label(_at("let"), "after this"))
    assert (
        render([Diagnostic("W0301", "too long", labels, severity=Severity.WARNING)])
        == """\
warning[W0301]: too long
 --> re\\x1bcipe.mrg:7:5
  |
1 | let a = model("x")
  | --- after this
...
7 | q = [1,
  |     ^^^
8 |   2,
9 |   3]
  |   ^^ this list
"""
    )


def test_control_characters_take_the_room_of_their_escapes() -> None:
    assert (
        render([Diagnostic("E0101", "no", (Label(_at('"abc"')),))])
        == """\
error[E0101]: no
  --> re\\x1bcipe.mrg:10:10
   |
10 | z = \\x1b[31m"abc"
   |             ^^^^^
"""
    )


def test_the_end_of_the_text() -> None:
    end = Span(SOURCE, len(SOURCE.text), len(SOURCE.text))
    assert render([Diagnostic("E0101", "no", (Label(end, "here"),))]).splitlines()[-2:] == ["12 |", "   | ^ here"]


def test_a_very_long_line_is_cut_around_the_fault() -> None:
    lines = render([Diagnostic("E0101", "no", (Label(_at("bad"), "this"),))]).splitlines()
    assert lines[3] == "11 | …" + "w" * 37 + " = bad"
    assert lines[4] == "   | " + " " * 41 + "^^^ this"


def test_two_files_and_a_file_without_a_place() -> None:
    other = Source("lib.mrg", "def f(x) = x\n")
    labels = (Label(_at("ties"), "called here"), Label(Span(other, 4, 5), "defined here"))
    assert (
        render([Diagnostic("E0205", "no", labels), Diagnostic("E0401", "no file", file="a/\nb")])
        == """\
error[E0205]: no
 --> re\\x1bcipe.mrg:2:6
  |
2 |     x = ties(a, 漢字b)
  |         ^^^^ called here
 ::: lib.mrg:1:5
  |
1 | def f(x) = x
  |     - defined here

error[E0401]: no file
 --> a/\\nb
"""
    )


def test_colour_only_adds_sequences() -> None:
    finding = Diagnostic("E0101", "no", (Label(_at("ties"), "here"), Label(_at("x = "), "there")), help=("mend",))
    painted = render([finding], color=True)
    assert "\x1b[1;31m^^^^\x1b[0m" in painted
    plain = painted
    for code in ("1;31", "1;33", "1;34", "1", "0"):
        plain = plain.replace(f"\x1b[{code}m", "")
    assert plain == render([finding])


@given(st.text(max_size=80), st.text(max_size=20), st.data())
def test_nothing_from_outside_reaches_the_terminal_raw(text: str, message: str, data: st.DataObject) -> None:
    source = Source(text[:5], text)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    finding = Diagnostic("E0101", message, (Label(Span(source, start, end), message),), notes=(message,))
    shown = render([finding])
    assert all(c == "\n" or rendering.escape(c) == c for c in shown)
    assert json.loads(to_json([finding]))["message"] == message


def test_json() -> None:
    span = _at("[1,\n  2,\n  3]")
    text = to_json(
        [Diagnostic("E0203", "no", (Label(span, "this"),), ("n",), ("h",)), Diagnostic("E0401", "x", file="f")]
    )
    first, second = map(json.loads, text.splitlines())
    place = {"file": "re\x1bcipe.mrg", "line": 7, "column": 5, "end_line": 9, "end_column": 5}
    assert first == {
        "code": "E0203",
        "severity": "error",
        "message": "no",
        **place,
        "labels": [{**place, "text": "this"}],
        "notes": ["n"],
        "help": ["h"],
    }
    assert (second["file"], second["line"], second["labels"]) == ("f", None, [])
