"""Numbers, strings and sizes between their text and their values."""

from __future__ import annotations

import math
import re

# What a backslash and one letter stand for, by the letter; `u` and `U`, which four or eight
# hexadecimal digits follow, are handled apart.
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([\s\S]))")
_LARGEST_INTEGER = 2**64 - 1
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


class LiteralError(Exception):
    """A literal without a value; `start` and `end` are offsets into its text."""

    def __init__(self, code: str, message: str, start: int, end: int, help: str = "") -> None:
        self.code, self.message, self.start, self.end, self.help = code, message, start, end, help
        super().__init__(message)


def read_number(text: str) -> int | float:
    """The value of a number token.

    An integer is at most 2**64 - 1 and a float is finite; a number that would round to zero is
    refused too. Raises LiteralError (E0106).

    >>> read_number("1_000"), read_number("1e-3")
    (1000, 0.001)
    """
    digits = text.replace("_", "")
    if digits.isdigit():
        # int() refuses very long texts; no integer of more than 20 digits would be in range anyway.
        if len(digits.lstrip("0")) <= 20 and (value := int(digits.lstrip("0") or "0")) <= _LARGEST_INTEGER:
            return value
        raise LiteralError("E0106", "this integer is too large", 0, len(text), "the largest is 18446744073709551615")
    number = float(digits)
    if math.isinf(number):
        raise LiteralError("E0106", "this number is too large", 0, len(text), "the largest is about 1.8e308")
    if number == 0 and re.search("[1-9]", re.split("[eE]", digits)[0]):
        raise LiteralError("E0106", "this number is too small: it would be 0", 0, len(text))
    return number


def parse_size(text: object) -> int | None:
    """Bytes of `5GB`, `500MiB`, `4GiB`; None for anything else."""
    m = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", str(text).upper())
    return int(float(m.group(1)) * _UNITS[m.group(2)]) if m and m.group(2) in _UNITS else None


def read_string(text: str) -> str:
    r"""The value of a string token, quotes included in `text`.

    A line end inside `\"\"\"` is `\n` in the value, however the file writes it. Raises LiteralError
    (E0105).

    >>> read_string(r'"a\tb\u00e9"')
    'a\tbé'
    """
    quotes = 3 if text.startswith('"""') and len(text) >= 6 else 1

    # Escapes first would turn a written-out `\\r` and a line end into one; offsets count in the
    # text as it is.
    values: list[str] = []
    offset = quotes
    for part in text[quotes:-quotes].split("\r\n"):
        values.append(_unescape(part, offset))
        offset += len(part) + 2
    return "\n".join(values)


def _unescape(text: str, offset: int) -> str:
    """`text`, found at `offset` in its token, with the escapes replaced."""

    def value(match: re.Match[str]) -> str:
        start, end = match.start() + offset, match.end() + offset
        short, long, letter = match.groups()
        if letter is not None:
            if letter in _ESCAPES:
                return _ESCAPES[letter]
            if letter in "uU":
                wanted = 4 if letter == "u" else 8
                raise LiteralError("E0105", f"`\\{letter}` needs {wanted} hexadecimal digits", start, end)
            raise LiteralError("E0105", "unknown escape", start, end, "a backslash itself is written `\\\\`")
        point = int(short or long, 16)
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            help = "a character beyond U+FFFF is written with `\\U` and 8 digits"
            raise LiteralError("E0105", "this escape is no character", start, end, help)
        return chr(point)

    return _ESCAPE.sub(value, text)


def write_string(value: str) -> str:
    r"""A string token for `value`: printable characters as they are, the rest escaped.

    >>> print(write_string('say "hi"\n'))
    "say \"hi\"\n"
    """
    names = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", '"': '\\"'}
    out = []
    for c in value:
        if c in names:
            out.append(names[c])
        elif c.isprintable():
            out.append(c)
        else:
            out.append(f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else f"\\U{ord(c):08x}")
    return '"' + "".join(out) + '"'


def bare(value: str) -> str:
    """The same without its quotes: what messages show of a text."""
    return write_string(value)[1:-1]
