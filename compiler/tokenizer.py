"""The vocabulary of a model: token to id, from the files of its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .catalog import Catalog, Checkpoint
from .documents import is_text, json_beside, unsound

MAX_ID = 1 << 24
"""Token ids are below this: an id is a row of an embedding."""


def read_vocabulary(catalog: Catalog, checkpoint: Checkpoint) -> dict[str, int] | None:
    """Token to id from tokenizer.json, else from vocab.json, added tokens included; None where neither is there.

    Raises CatalogError (E0436) where one is there and is not sound; the message names the file and the token.
    """
    data = json_beside(catalog, checkpoint, "tokenizer.json")
    if data is not None:
        name = "tokenizer.json"
        pairs = [
            *_model_tokens(checkpoint, name, data.get("model")),
            *_added_tokens(checkpoint, name, data.get("added_tokens")),
        ]
        return _checked(checkpoint, name, pairs)
    data = json_beside(catalog, checkpoint, "vocab.json")
    if data is None:
        return None
    vocabulary = _checked(checkpoint, "vocab.json", list(data.items()))
    more = json_beside(catalog, checkpoint, "added_tokens.json")
    if more is not None:
        vocabulary.update(_checked(checkpoint, "added_tokens.json", list(more.items())))
    return vocabulary


def _model_tokens(checkpoint: Checkpoint, name: str, inner: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(inner, dict):
        raise unsound(checkpoint, name, "`model` is not an object")
    vocabulary = inner.get("vocab", {})
    if isinstance(vocabulary, dict):
        yield from vocabulary.items()
        return
    if not isinstance(vocabulary, list):
        raise unsound(checkpoint, name, "`vocab` is neither an object nor a list")
    for number, entry in enumerate(vocabulary):
        if not isinstance(entry, list) or not entry:
            raise unsound(checkpoint, name, f"entry {number} of `vocab` is not a token with its score")
        yield entry[0], number


def _added_tokens(checkpoint: Checkpoint, name: str, added: Any) -> Iterator[tuple[Any, Any]]:
    if added is None:
        return
    if not isinstance(added, list):
        raise unsound(checkpoint, name, "`added_tokens` is not a list")
    for number, entry in enumerate(added):
        if not isinstance(entry, dict) or "content" not in entry or "id" not in entry:
            raise unsound(checkpoint, name, f"entry {number} of `added_tokens` has no `content` and `id`")
        yield entry["content"], entry["id"]


def _checked(checkpoint: Checkpoint, name: str, pairs: list[tuple[Any, Any]]) -> dict[str, int]:
    """The pairs as a map, each token text and each id a row's number; of a token that comes twice the last counts."""
    for token, number in pairs:
        if not is_text(token):
            raise unsound(checkpoint, name, f"the token of id `{_short(number)}` is not text")
        if type(number) is not int or not 0 <= number < MAX_ID:
            raise unsound(checkpoint, name, f"token `{_short(token)}` has the id `{_short(number)}`")
    return dict(pairs)


def _short(value: Any) -> str:
    text = str(value) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) <= 60 else text[:59] + "…"
