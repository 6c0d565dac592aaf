"""The table of slips is its own test: every sample gives its entry's code and message, and nothing
else."""

from __future__ import annotations

import pytest
from mergec.grammar.diagnostic import MergecError
from mergec.grammar.parse import parse
from mergec.grammar.render import render
from mergec.grammar.source import Source
from mergec.grammar.syntax_errors import SLIPS, Slip


@pytest.mark.parametrize(
    ("slip", "sample"),
    [pytest.param(slip, sample, id=sample) for slip in SLIPS for sample in slip.samples],
)
def test_sample(slip: Slip, sample: str) -> None:
    with pytest.raises(MergecError) as caught:
        parse(Source("recipe.mrg", sample))
    first = caught.value.diagnostics[0]
    assert (first.code, first.message) == (slip.code, slip.message)
    assert bool(first.help) == bool(slip.help)


def test_messages_follow_the_style() -> None:
    for slip in SLIPS:
        assert slip.samples
        assert slip.message[0].islower() or slip.message[0] == "`"
        assert not slip.message.endswith(".")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "layers[0:15] = a",
            """\
error[E0101]: a range is written with `..`
 --> recipe.mrg:1:9
  |
1 | layers[0:15] = a
  |         ^
  |
  = help: `0..15`, both ends included
""",
        ),
        (
            "let x = 3 +\nlet y = ties(a b)\n",
            """\
error[E0101]: expected an expression, found the end of the line
 --> recipe.mrg:1:12
  |
1 | let x = 3 +
  |            ^
  |
  = help: inside `( )` an expression may go on over lines

error[E0101]: a comma is missing
 --> recipe.mrg:2:16
  |
2 | let y = ties(a b)
  |                ^
  |
  = help: put `,` between the two
""",
        ),
        (
            "let x = [a, (b]",
            """\
error[E0103]: expected `)`, found `]`
 --> recipe.mrg:1:15
  |
1 | let x = [a, (b]
  |             - ^ this closes no `(`
  |             |
  |             this one is open
""",
        ),
        (
            "let x = )",
            """\
error[E0103]: `)` closes nothing
 --> recipe.mrg:1:9
  |
1 | let x = )
  |         ^ no bracket is open here
""",
        ),
        (
            "let x = f(a, for=, b)",
            """\
error[E0101]: expected an expression, found `,`
 --> recipe.mrg:1:18
  |
1 | let x = f(a, for=, b)
  |                  ^ expected an expression
""",
        ),
    ],
)
def test_rendered(text: str, expected: str) -> None:
    with pytest.raises(MergecError) as caught:
        parse(Source("recipe.mrg", text))
    assert render(caught.value.diagnostics) == expected
