"""Recipes and configurations that would take all memory or all day: each is refused with its code,
in a gigabyte."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import mergec
import pytest
from mergec.grammar.diagnostic import MergecError
from mergec.grammar.source import Source
from mergec.runtime.catalog.recipes import MAX_RECIPE, read_source

LETS = 'let a = model("a"); let b = model("b")\n'


def doubled(first: str, line: str, last: str, times: int) -> str:
    """Each line names the one before twice."""
    lines = [line.replace("NEW", str(n)).replace("OLD", str(n - 1)) for n in range(1, times)]
    return "\n".join([first, *lines, last.replace("NEW", str(times - 1))])


NEXT = "let xNEW = xOLD * xOLD"
DEF = "def fNEW(x) = fOLD(x)"
PLACED = "let x0 = a.layers[0] + b.layers[1]"

RECIPES = {
    # text
    "10 MB of statements": ("let x = 1\n" * 1_000_000, "E0480"),
    "10 MB in a string": ('let x = "' + "y" * 10_000_000 + '"\n* = a', "E0480"),
    "10 MB of comment": ("* = a # " + "y" * 10_000_000, "E0480"),
    "a long string": ('let x = "' + "y" * 400_000 + '"\n* = a', ""),
    "a long string without an end": ('let x = "' + "y" * 400_000, "E0104"),
    "long strings without an end": ('let x = "y\n' * 40_000, "E0104"),
    "a text without an end": ('let x = """' + 'y" \\ ' * 80_000, "E0104"),
    "quotes": ('"' * 400_001, "E0104"),
    "backslashes": ('let x = "' + "\\" * 400_001, "E0104"),
    "NUL": ("let x\0 = 1", "E0101"),
    "NUL in a string": ('let x = "a\0b"\n* = a', ""),
    "NUL in a path": ('let x = model("a\\0b")', "E0401"),
    "half of a character": ('let x = "\ud800"', "E0102"),
    "half of a character as an escape": ('let x = "\\ud800"', "E0105"),
    "a byte order mark": ("\ufeff* = 1", "E0220"),
    "line ends of another system": ("let x = 1\r\n* = a\r\n", ""),
    "line ends of an old one": ("let x = 1\r* = a\r", "E0102"),
    "a terminal's sequence": ("let \x1b[31m = 1", "E0103"),
    "blanks before a fault": ("x" + " " * 400_000 + "= =", "E0101"),
    "equals signs in brackets": ("* = f(" + "= " * 200_000 + ")", "E0101"),
    "a very long name": ("* = " + "x" * 400_000, "E0201"),
    "two alike": ("let " + "x" * 200_000 + " = a\n* = " + "x" * 200_000 + "y", "E0201"),
    # nesting
    "100,000 parentheses": ("* = " + "(" * 100_000 + "a" + ")" * 100_000, "E0107"),
    "parentheses without an end": ("* = " + "(" * 100_000, "E0107"),
    "100,000 lists": ("let x = " + "[" * 100_000 + "]" * 100_000, "E0107"),
    "maps in maps": ("output(config=" + "{x: " * 101 + "1" + "}" * 101 + ")", "E0107"),
    "signs": ("let x = " + "-" * 20_000 + "1", "E0107"),
    "a long sum": ("* = " + " + ".join(["a"] * 10_000), "E0107"),
    "a long path": ("* = a" + ".b" * 10_000, "E0107"),
    "a long choice": ("let x = " + "1 if true else " * 5_000 + "2", "E0107"),
    "closers": (")" * 100_000, "E0103"),
    "openers and closers": ("([{" * 30 + ")" * 10_000, "E0103"),
    "lets on top of each other": (doubled("let x0 = a", "let xNEW = xOLD + b", "* = xNEW", 2_000), "E0211"),
    "lists in lists": (doubled("let x0 = [1]", "let xNEW = [xOLD]", "expect xNEW == 1", 2_000), "E0211"),
    "defs on top of each other": (doubled("def f0(x) = x", DEF, "* = fNEW(a)", 2_000), "E0211"),
    "a circle of defs": (doubled("def f0(x) = f1999(x)", DEF, "* = fNEW(a)", 2_000), "E0207"),
    # doubling
    "defs": (doubled("def f0(x) = x", "def fNEW(x) = fOLD(x) + fOLD(x)", "* = fNEW(a)", 60), "E0219"),
    "defs of defs": (doubled("def f0(x) = x + x", "def fNEW(x) = fOLD(fOLD(x))", "* = fNEW(a)", 15), "E0211"),
    "regions": (doubled("let x0 = a", NEXT, "* = xNEW", 60), ""),
    "regions at places": (
        doubled(PLACED, NEXT, "layers[0].attn = xNEW.attn", 60),
        "E0308",
    ),
    "stacks": (
        doubled(PLACED, NEXT, "* = a; layers = stack(xNEW)", 60),
        "",
    ),
    "choices": (doubled("let x0 = a", "let xNEW = xOLD + xOLD if depth < 0.5 else xOLD * xOLD", "* = xNEW", 60), ""),
    "numbers that vary": (doubled("let x0 = depth", "let xNEW = xOLD + xOLD", "* = a * xNEW", 60), ""),
    "lists": (doubled("let x0 = [1]", "let xNEW = xOLD + xOLD", "expect xNEW == 1", 60), "E0219"),
    "lists of lists": (doubled("let x0 = [1]", "let xNEW = [xOLD, xOLD]", "expect xNEW == 1", 60), "E0219"),
    "maps of maps": (
        doubled("let x0 = {x: 1}", "let xNEW = {x: xOLD, y: xOLD}", "output(config=xNEW)\n* = a", 60),
        "E0219",
    ),
    "comprehensions": (
        "let z = range(10)\nlet y = " + "[" * 8 + "1" + "".join(f" for i{n} in z]" for n in range(8)),
        "E0219",
    ),
    "long lists handed over": ("def f(x) = 1\nlet z = range(100000)\nlet y = [f(z) for i in z]", "E0219"),
    "long lists compared": ("let z = range(100000)\nlet y = [z == z for i in z]", "E0219"),
    # numbers
    "1e400": ("let x = 1e400", "E0106"),
    "1e-400": ("let x = 1e-400", "E0106"),
    "a number of 400,000 digits": ("let x = " + "9" * 400_000, "E0106"),
    "a number of 400,000 decimals": ("let x = 0." + "9" * 400_000 + "\n* = a", ""),
    "a power of powers": ("let x = 9 ** 9 ** 9 ** 9", "E0216"),
    "a power that varies": ("* = a * 18446744073709551615 ** (18446744073709551615 + layer)", "E0216"),
    "a product": ("let x = " + " * ".join(["18446744073709551615"] * 40), "E0216"),
    "powers of one": ("let x = (0 - 1) ** 18446744073709551615\n* = a * x", ""),
    "a huge range": ("let x = range(1000000000)", "E0209"),
    "a huge index": ("* = a; layers[0..18446744073709551615] = a", "E0181"),
    "a huge index of an input": ("* = a; layers = stack(a.layers[0..9223372036854775807])", "E0303"),
    "a huge depth": ("output(layers=9223372036854775807)\n* = a", "E0181"),
    "a huge stack": ("* = a; layers = stack(" + "a.layers[0..3], " * 3_000 + ")", "E0181"),
    "a huge padding": ("output(tokenizer=a, pad_vocab_to=9223372036854775807)\n* = a", "E0208"),
    # much of one thing
    "models": ('* = linear(*[model("a") for i in range(5000)])', "E0182"),
    "parameters": ("def f(" + ", ".join(f"p{n}" for n in range(10_000)) + ") = p0\n* = f(a)", "E0204"),
    "unknown names": ("\n".join(f"let y{n} = x{n}" for n in range(4_000)), "E0201"),
    "stars": ('"' + "*a" * 40 + 'b" = a', "E0304"),
    "globs below globs": ('* = a; layers[0]' + '."*"' * 20 + " = a", "E0301"),
    "selectors": ("layers[" + "0, " * 5_000 + "0] = a", "E0303"),
    "libraries in a circle": ('use "circle"', "E0212"),
}  # fmt: skip

YAML = {
    "a billion laughs": (
        "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9) if n else 'x'}]\n" for n in range(12)),
        "E0701",
    ),
    "a billion defaults": (
        "k0: &k0 {x: 1}\n" + "".join(f"k{n}: &k{n} {{<<: [{', '.join([f'*k{n - 1}'] * 9)}]}}\n" for n in range(1, 30)),
        "E0702",
    ),
    "deep lists": ("a: " + "[" * 100_000, "E0701"),
    "deep maps": ("{a: " * 50_000, "E0701"),
    "deep blocks": ("".join(" " * n + "a:\n" for n in range(500)), "E0701"),
    "dashes": ("- " * 20_000, "E0701"),
    "10 MB": ("a: b\n" * 2_000_000, "E0480"),
    "in itself": ("a: &a [*a]", "E0701"),
    "default of itself": ("a: &a {<<: *a}", "E0701"),
    "an object": ("a: !!python/object/apply:os.system ['true']", "E0702"),
    "NUL": ("a: \0", "E0701"),
    "no number": ("merge_method: linear\nmodels: [{model: a, parameters: {weight: .nan}}]", "E0704"),
    "a long number": ("merge_method: linear\nmodels: [{model: a, parameters: {weight: " + "9" * 4000 + "}}]", "E0704"),
    "a list": ("[]", "E0702"),
    "wrong types": ("merge_method: []\nmodels: 3", "E0702"),
    "a mapping as a key": ("? [a]\n: b", "E0701"),
    "a tag that does not fit": ("merge_method: !!int ''\nmodels: [{model: a}]", "E0703"),
    "a home of nobody": ("merge_method: passthrough\nmodels: [{model: '~nobody/" + "x" * 5000 + "'}]", ""),
}


@functools.cache
def found() -> dict[str, tuple[str, int]]:
    """What came of every case: the first code, and the length of what would be printed."""
    texts = {name: LETS + text if not text.startswith("\ufeff") else text for name, (text, _) in RECIPES.items()}
    texts |= {f"yaml {name}": text for name, (text, _) in YAML.items()}
    package = str(Path(mergec.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "limited.py")],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        env={"PYTHONPATH": package, "PATH": "/usr/bin:/bin"},
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    told = {name: (code, length) for name, code, length in lines}
    missing = next((name for name in texts if name not in told), None)
    assert missing is None, f"ended at `{missing}`: {done.stderr[-2000:]}"
    return told


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str) -> None:
    code, length = found()[name]
    assert code == RECIPES[name][1]
    assert length < 40_000


@pytest.mark.parametrize("name", YAML)
def test_configuration(name: str) -> None:
    code, length = found()[f"yaml {name}"]
    assert code == YAML[name][1]
    assert length < 10_000


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"\xff\xfe", "E0403"), (b"* = \x80", "E0403"), (b" " * (MAX_RECIPE + 1), "E0480")],
    ids=["utf-16", "not utf-8", "long"],
)
def test_file_that_is_no_text(content: bytes, code: str, tmp_path: Path) -> None:
    path = tmp_path / "r.mrg"
    path.write_bytes(content)
    with pytest.raises(MergecError) as caught:
        read_source(path)
    assert (caught.value.diagnostics[0].code, caught.value.diagnostics[0].file) == (code, str(path))


def test_file_without_an_end() -> None:
    with pytest.raises(MergecError) as caught:
        read_source(Path("/dev/zero"))
    assert caught.value.diagnostics[0].code == "E0480"


def test_a_library_is_found_wherever_the_recipe_says(tmp_path: Path) -> None:
    """`use` takes the paths that a recipe's author writes, as `model` does: a recipe is trusted to
    read files, and what it reads is parsed, never run. What comes back from a file that is no
    library is one diagnostic, not its text."""
    secret = tmp_path / "secret.txt"
    secret.write_text("password: hunter2\nanother: line\n")
    below = tmp_path / "recipes"
    below.mkdir()
    with pytest.raises(MergecError) as caught:
        mergec.compile(Source(str(below / "r.mrg"), 'use "../secret.txt"'), device="cpu")
    found = caught.value.diagnostics
    assert [d.code for d in found] != []
    assert all("another" not in d.message for d in found)
