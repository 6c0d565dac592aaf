"""A model's tokenizer as its files tell it: which id each token has, and how added tokens are
matched.

What transformers makes of these files when it loads them is what counts, as these are the ids that
a model gets to see: tokens that tokenizer_config.json, special_tokens_map.json or added_tokens.json
name beside tokenizer.json are added to it, and so they have ids too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...grammar.records import dataclass
from .catalog import Catalog, Checkpoint
from .documents import is_text, json_beside, unsound

MAX_ID = 1 << 24
"""Token ids are below this: an id is a row of an embedding."""

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""Special tokens with a name of their own, in the order in which transformers adds those that are
not there yet."""

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
"""How an added token is matched in a text, and whether decoding may leave it out."""


@dataclass(frozen=True, slots=True, eq=False)
class Tokenizer:
    """`ids` are all tokens with their ids, `flags` those of added tokens under the names in
    `FLAGS`; `roles` says which token has which of `ROLES`."""

    ids: Mapping[str, int]
    flags: Mapping[str, Mapping[str, bool]]
    roles: Mapping[str, str]

    @property
    def size(self) -> int:
        """One past the highest id."""
        return max(self.ids.values(), default=-1) + 1


def read_tokenizer(catalog: Catalog, checkpoint: Checkpoint) -> Tokenizer | None:
    """The tokenizer of tokenizer.json, else of vocab.json, with what the files beside it add; None
    where neither is there.

    Raises CatalogError (E0436) where a file is there and is not sound; the message names the file
    and the token.
    """
    flags: dict[str, Mapping[str, bool]] = {}
    name, data = "tokenizer.json", json_beside(catalog, checkpoint, "tokenizer.json")
    if data is not None:
        added = list(_added_tokens(checkpoint, name, data.get("added_tokens")))
        pairs = [*_model_tokens(checkpoint, name, data.get("model")), *((e["content"], e["id"]) for e in added)]
        ids = _checked(checkpoint, name, pairs)
        flags |= {entry["content"]: _flags(entry) for entry in added}
    else:
        name, data = "vocab.json", json_beside(catalog, checkpoint, "vocab.json")
        if data is None:
            return None
        ids = _checked(checkpoint, name, list(data.items()))
    roles: dict[str, str] = {}
    fast = name == "tokenizer.json"
    size, taken = max(ids.values(), default=-1) + 1, set() if fast else set(ids.values())
    for token, said, own in _beside(catalog, checkpoint, roles):
        if token in ids:
            flags.setdefault(token, own)
            continue
        # what tokenizer.json lacks gets the next id, whatever the other file says
        number = size if fast or said is None or said in taken else said
        ids |= _checked(checkpoint, "tokenizer_config.json", [(token, number)])
        flags[token] = own
        taken.add(number)
        size = max(size, number + 1)
    return Tokenizer(ids, flags, roles)


# --- tokenizer.json and vocab.json ----------------------------------------------------------------


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


def _added_tokens(checkpoint: Checkpoint, name: str, added: Any) -> Iterator[dict[str, Any]]:
    if added is None:
        return
    if not isinstance(added, list):
        raise unsound(checkpoint, name, "`added_tokens` is not a list")
    for number, entry in enumerate(added):
        if not isinstance(entry, dict) or "content" not in entry or "id" not in entry:
            raise unsound(checkpoint, name, f"entry {number} of `added_tokens` has no `content` and `id`")
        yield entry


def _checked(checkpoint: Checkpoint, name: str, pairs: list[tuple[Any, Any]]) -> dict[str, int]:
    """The pairs as a map, each token text and each id a row's number; of a token that comes twice
    the last counts."""
    for token, number in pairs:
        if not is_text(token):
            raise unsound(checkpoint, name, f"the token of id `{_short(number)}` is not text")
        if type(number) is not int or not 0 <= number < MAX_ID:
            raise unsound(checkpoint, name, f"token `{_short(token)}` has the id `{_short(number)}`")
    return dict(pairs)


def _short(value: Any) -> str:
    text = str(value) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) <= 60 else text[:59] + "…"


# --- the files beside them ------------------------------------------------------------------------


def _beside(
    catalog: Catalog, checkpoint: Checkpoint, roles: dict[str, str]
) -> Iterator[tuple[str, int | None, Mapping[str, bool]]]:
    """The tokens that other files name, in the order in which they are added, with the ids that
    these say and their flags; fills `roles`."""
    config = dict(json_beside(catalog, checkpoint, "tokenizer_config.json") or {})
    decoder = config.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        config |= json_beside(catalog, checkpoint, "special_tokens_map.json") or {}
    named = {role: config.get(f"{role}_token") for role in ROLES}
    more = config.get("extra_special_tokens") or config.get("additional_special_tokens")
    extra = list(more) if isinstance(more, list) else list(more.values()) if isinstance(more, dict) else []
    specials = {text: _special(value) for value in (*named.values(), *extra) if (text := _text(value))}
    roles |= {role: text for role, value in named.items() if (text := _text(value))}
    if isinstance(decoder, dict):
        name = "tokenizer_config.json"
        for key, entry in decoder.items():
            if not isinstance(entry, dict) or not is_text(entry.get("content")):
                raise unsound(checkpoint, name, f"entry `{_short(key)}` of `added_tokens_decoder` has no `content`")
            if not (key.isascii() and key.isdecimal() and len(key) < 10):
                raise unsound(checkpoint, name, f"`added_tokens_decoder` has the id `{_short(key)}`")
        for key, entry in sorted(decoder.items(), key=lambda item: int(item[0])):
            yield entry["content"], int(key), _flags(entry)
    else:
        more = json_beside(catalog, checkpoint, "added_tokens.json") or {}
        listed = _checked(checkpoint, "added_tokens.json", list(more.items()))
        for token in sorted(listed, key=listed.__getitem__):
            yield token, listed[token], specials.get(token, flags_of_a_plain_token(normalized=True))
    for token, own in specials.items():
        yield token, None, own


def _text(value: Any) -> str | None:
    found = value.get("content") if isinstance(value, dict) else value
    return found if is_text(found) and found else None


def _special(value: Any) -> Mapping[str, bool]:
    given = value if isinstance(value, dict) else {}
    return {**_flags(given), "special": True}


def _flags(entry: Mapping[str, Any]) -> Mapping[str, bool]:
    return {flag: entry.get(flag) is True for flag in FLAGS}


def flags_of_a_plain_token(*, normalized: bool = False) -> Mapping[str, bool]:
    """Flags of an added token of which no file says any."""
    return dict.fromkeys(FLAGS, False) | {"normalized": normalized}
