"""Patterns over tensor names: `{i}` is a number between dots, `*` any run of characters.

A checkpoint of a hundred thousand tensors has few hundred kinds of names. A name is therefore split
once into its kind (the name without its numbers) and its numbers; patterns are matched against
kinds, and what they say about a kind holds for all its names.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence

from ...grammar.records import dataclass

_NUMBERS = re.compile(r"(?<![^.])(0|[1-9][0-9]{0,8})(?![^.])")
_INNER = re.compile(r"\.(0|[1-9][0-9]{0,8})(?![^.])")  # the same after a dot, which is quicker to look for
_VARIABLES = re.compile(r"\{([a-z]\w*)\}|(\*)")

# a kind spells its number k as this character plus k, of a private area of Unicode, so that
# captures keep their places
_FIRST = 0xF0000
_LAST = 0xFFFFD
_MARK = f"[{chr(_FIRST)}-{chr(_LAST)}]"
_MARKS = re.compile(_MARK)
_MOST = 64  # numbers in a name; one that has more is hostile, and taken as it is


def split(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The text between a name's numbers, and the numbers as written.

    >>> split("model.layers.3.mlp.w1.weight")
    (('model.layers.', '.mlp.w1.weight'), ('3',))
    """
    inner = not name[:1].isdigit()
    pieces = (_INNER if inner else _NUMBERS).split(name)
    if len(pieces) > 2 * _MOST + 1:
        return (name,), ()
    texts, numbers = pieces[::2], pieces[1::2]
    if inner:
        texts[:-1] = [text + "." for text in texts[:-1]]
    return tuple(texts), tuple(numbers)


def kind_of(texts: Sequence[str]) -> str:
    """The texts of `split` joined by one mark per number."""
    out = [texts[0]]
    for k, text in enumerate(texts[1:]):
        out += (mark(k), text)
    return "".join(out)


def mark(k: int) -> str:
    """How a kind spells its number `k`, from 0."""
    return chr(_FIRST + k)


def number_of(mark: str) -> int:
    """The reverse of `mark`."""
    return ord(mark) - _FIRST


def has_marks(texts: Sequence[str]) -> bool:
    """Whether the texts of a name contain the marks themselves, so that its kind would mean
    something else."""
    return any(not text.isascii() and _MARKS.search(text) for text in texts)


@dataclass(frozen=True, slots=True)
class Template:
    """A kind of name to be filled with numbers: `text` is a %-format, `order` says which number
    goes where."""

    text: str
    order: tuple[int, ...]

    def fill(self, numbers: Sequence[object]) -> str:
        return self.text % tuple([numbers[k] for k in self.order])


def template(kind: str) -> Template:
    """A kind, made ready to be filled with numbers."""
    order = tuple(number_of(found) for found in _MARKS.findall(kind))
    return Template(_MARKS.sub("%s", kind.replace("%", "%%")), order)


@dataclass(frozen=True, slots=True)
class Pattern:
    """`layers.{i}.mlp.*`, compiled.

    `variables` are the names between braces in order of their first appearance, and then `*` if the
    pattern has one.
    """

    text: str
    variables: tuple[str, ...]
    expression: re.Pattern[str]

    def match(self, text: str) -> dict[str, str] | None:
        """Each variable's part of the text; None where the pattern does not cover it whole."""
        found = self.expression.fullmatch(text)
        return dict(zip(self.variables, found.groups(), strict=True)) if found else None


@functools.lru_cache(maxsize=4096)
def pattern(text: str, number: str = _MARK) -> Pattern:
    """Compiles a pattern, `number` being the expression for `{i}`: for kinds, or `[0-9]+` for names
    themselves.

    Raises ValueError where a variable or `*` appears twice.
    """
    variables: list[str] = []
    out: list[str] = []
    at = 0
    for found in _VARIABLES.finditer(text):
        variable = found[1] or "*"
        if variable in variables:
            raise ValueError(f"`{variable}` appears twice in `{text}`")
        variables.append(variable)
        out += (re.escape(text[at : found.start()]), "(.+)" if variable == "*" else f"({number})")
        at = found.end()
    return Pattern(text, tuple(variables), re.compile("".join(out) + re.escape(text[at:]), re.DOTALL))


def substitute(text: str, values: Mapping[str, str]) -> str:
    """A pattern with its variables replaced; all of them must have a value.

    >>> substitute("model.layers.{i}.norm.*", {"i": "3", "*": "weight"})
    'model.layers.3.norm.weight'
    """
    return _VARIABLES.sub(lambda found: values[found[1] or "*"], text)


def variables_of(text: str) -> tuple[str, ...]:
    """The variables of a pattern, `*` included.

    >>> variables_of("layers.{i}.experts.{e}.*")
    ('i', 'e', '*')
    """
    return tuple(found[1] or "*" for found in _VARIABLES.finditer(text))


@functools.lru_cache(maxsize=256)
def any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for several globs, in which `*` matches any run of characters, dots
    included."""
    branches = ("".join(".*" if part == "*" else re.escape(part) for part in re.split(r"(\*)", g)) for g in globs)
    return re.compile("|".join(branches) if globs else r"(?!)", re.DOTALL)


def enclosing(*names: str) -> list[str]:
    """The modules, from the root on, that hold all of several modules or tensors.

    >>> enclosing("model.layers.0.mlp", "model.norm")
    ['model']
    """
    paths = [name.split(".")[:-1] for name in names]
    held = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return [parts[0] for parts in held]
