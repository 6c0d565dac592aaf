"""Texts and bytes made from a corpus: pieces cut, doubled, swapped, joined and strewn with what
tends to hurt.

Everything is drawn from one `random.Random`, or from hypothesis in its place, so that a find can be
had again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
ROOT = Path(__file__).resolve().parents[2]

_WORDS = re.compile(r"\w+|\s+|[^\w\s]")


def _words(file: str, *more: str) -> tuple[str, ...]:
    text = (Path(__file__).parent / "words" / file).read_text("utf-8")
    return (*text.split(), *more)


_BLANKS = ("\n", "\n\n", " ", "\t", "\r\n", "\r", "\x00", "\ufeff", "\u2028", "\x85", "\x1b[31m", "é", "٣", "😀")
_PHRASES = ("* = a\n", 'let c = model("c")\n', "output(layers=3)\n", "def f(x) = x + x\n", "head = tie(embed)\n")
RECIPE_WORDS = _words("recipes.txt", *_BLANKS, "\ud800", *_PHRASES)
YAML_WORDS = _words("yaml.txt", *_BLANKS, "\n  ", "\n- ", "  ")
JSON_WORDS = _words("json.txt")


def corpus(folder: str) -> list[str]:
    """The texts of a folder of the corpus, in order; for `recipes` and `yaml` those of the project
    too."""
    files = sorted((CORPUS / folder).iterdir())
    if folder == "recipes":
        files += sorted([*(ROOT / "examples").glob("*.mrg"), *(ROOT / "stdlib").glob("*.mrg")])
    if folder == "yaml":
        files += sorted((ROOT / "tests" / "import" / "peer").glob("*/config.yml"))
    return [file.read_bytes().decode("utf-8", "surrogateescape") for file in files if file.is_file()]


def mutated(rng: random.Random, texts: Sequence[str], words: Sequence[str], edits: int = 6) -> str:
    """A text of the corpus after up to so many edits, word by word."""
    pieces = _WORDS.findall(rng.choice(texts))
    if rng.random() < 0.6:
        return swapped(rng, "".join(pieces), words, edits)
    if rng.random() < 0.5:
        start = rng.randrange(len(pieces) + 1)
        pieces = pieces[start : start + 60]
    for _ in range(rng.randrange(edits + 1)):
        at = rng.randrange(len(pieces) + 1)
        span = rng.choice((1, 1, 1, 2, 5, 20))
        match rng.randrange(8):
            case 0:
                pieces[at : at + span] = []
            case 1 | 2 | 3:
                pieces.insert(at, rng.choice(words))
            case 4:
                pieces[at : at + 1] = [rng.choice(words)]
            case 5:
                pieces[at:at] = pieces[at : at + span] * rng.choice((1, 1, 2, 8, 40))
            case 6:
                other = _WORDS.findall(rng.choice(texts))
                begin = rng.randrange(len(other) + 1)
                pieces[at : at + span] = other[begin : begin + span * 3]
            case _:
                to = rng.randrange(len(pieces) + 1)
                moved = pieces[at : at + span]
                pieces[at : at + span] = []
                pieces[to:to] = moved
    return "".join(pieces)


def _kind(word: str) -> str:
    """Name, number, operator, text or blank."""
    first = word[:1]
    if first.isdigit():
        return "number"
    if first.isalpha() or first == "_":
        return "name" if word.isalnum() else "phrase"
    return "operator" if len(word) <= 2 and word in ("+", "-", "*", "/", "**", "<", ">", "==") else first


def swapped(rng: random.Random, text: str, words: Sequence[str], edits: int = 4) -> str:
    """A text with up to so many words replaced by others of their kind: much of it still means
    something."""
    pieces = _WORDS.findall(text)
    for _ in range(rng.randrange(edits + 1) if pieces else 0):
        at = rng.randrange(len(pieces))
        alike = [word for word in words if _kind(word) == _kind(pieces[at])]
        if alike and not pieces[at].isspace():
            pieces[at] = rng.choice(alike)
    return "".join(pieces)


def strewn(rng: random.Random, raw: bytes, edits: int = 4) -> bytes:
    """Bytes after some edits of single bits and bytes."""
    out = bytearray(raw)
    for _ in range(rng.randrange(edits + 1)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0:
                out[at : at + rng.choice((1, 4, 9))] = b""
            case 1:
                out[at:at] = rng.choice((b"\x00", b"\xff", b"\xff" * 8, b"\x80", b"\\", b'"', b"[[[[", b"9" * 20))
            case 2 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case _:
                out[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(out)
