"""Kinds of values: what parameters declare to accept, and how messages call what they were
given."""

from __future__ import annotations

from typing import Any

from .terms import PlaceMap, Token, Union, Vary, is_region

KINDS = ("number", "integer", "boolean", "string", "region")
"""What a parameter can be declared to accept."""


def article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def kind_of(value: Any) -> str:
    """A value's kind in words, for messages."""
    for kinds, word in (
        (bool, "a boolean"),
        (int | float | Vary, "a number"),
        (str, "a string"),
        (tuple, "a list"),
        (PlaceMap, "a place map"),
        (Token | Union, "a tokenizer setting"),
    ):
        if isinstance(value, kinds):
            return word
    if value is None:
        return "`none`"
    return "a region" if is_region(value) else "a function"
