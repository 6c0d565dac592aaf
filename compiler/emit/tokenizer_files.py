"""The tokenizer's files where the output has tokens that its tokenizer's own files lack.

They are added tokens with the flags that they have where they come from, under the ids of the
output, in all files that list such: tokenizer.json, added_tokens.json, and `added_tokens_decoder`
of tokenizer_config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...grammar.diagnostic import error
from ..checkpoint.catalog import Catalog, Checkpoint
from ..checkpoint.documents import json_beside, json_text, said_of
from ..checkpoint.tokenizer import FLAGS, flags_of_a_plain_token
from ..elaborate.vocabulary import Vocabulary, source_of
from ..plan.plan import Document
from ..terms.terms import Leaf, Token

_LISTS_OF_SPECIAL = ("extra_special_tokens", "additional_special_tokens")
"""Keys of tokenizer_config.json: those of no role of their own."""


def tokenizer_files(catalog: Catalog, vocabulary: Vocabulary) -> list[Document]:
    """The files to write instead of the tokenizer's own; none where nothing is added to these.

    Raises MergecError: E0319 where tokens can't be added.
    """
    if not vocabulary.added:
        return []
    owner = vocabulary.origin.checkpoint
    with said_of(vocabulary.origin):
        whole = json_beside(catalog, owner, "tokenizer.json")
        config = json_beside(catalog, owner, "tokenizer_config.json")
        given = dict(config or {})
        listed = json_beside(catalog, owner, "added_tokens.json")
    own = vocabulary.tokenizers[vocabulary.origin.number]
    flags = {**{token: own.flags.get(token) for token in own.ids}, **_flags_of_added(vocabulary)}
    out = []
    if whole is not None:
        out.append(Document("tokenizer.json", json_text(_whole(whole, vocabulary, flags))))
    if listed is not None or whole is None or (config is None and _has_pieces(owner)):
        more = {token: vocabulary.ids[token] for token in vocabulary.added}
        out.append(Document("added_tokens.json", json_text({**(listed or {}), **more})))
    decoder = (config or {}).get("added_tokens_decoder")
    if config is not None and (isinstance(decoder, dict) or whole is None or _has_pieces(owner)):
        known = decoder if isinstance(decoder, dict) else {}
        listing = {str(own.ids[token]): _entry(token, flags[token]) for token in own.flags} if not known else {}
        more_entries = {str(vocabulary.ids[token]): _entry(token, flags[token]) for token in vocabulary.added}
        config["added_tokens_decoder"] = {**known, **listing, **more_entries}
    special = [t for t in vocabulary.added if (flags[t] or flags_of_a_plain_token())["special"]]
    for key in _LISTS_OF_SPECIAL:
        if config is not None and isinstance(config.get(key), list):
            config[key] = [*config[key], *special]
    if config is not None and config != given:
        out.append(Document("tokenizer_config.json", json_text(config)))
    return out


def _has_pieces(owner: Checkpoint) -> bool:
    """Whether there is a SentencePiece model: who reads that does not look into tokenizer.json."""
    return any(name.endswith(".model") for name in owner.extras)


def _whole(data: dict[str, Any], vocabulary: Vocabulary, flags: Mapping[str, Mapping[str, bool] | None]) -> Any:
    """tokenizer.json with all tokens of the output that it lacks."""
    ids, model = vocabulary.ids, data["model"]
    entries = list(data.get("added_tokens") or ())
    stored = model.get("vocab", {})
    there = {e["content"] for e in entries} | set(stored if isinstance(stored, dict) else [e[0] for e in stored])
    lacking = sorted((n, token) for token, n in ids.items() if token not in there)
    entries += [{"id": n, **_entry(token, flags[token])} for n, token in lacking]
    data["added_tokens"] = entries
    if _ids_when_loaded(entries, stored) == [e["id"] for e in entries]:
        return data
    # a gap in the ids: only what the vocabulary itself lists keeps its id
    if not isinstance(stored, dict):
        raise error(
            "E0319",
            f"no tokens can be added to the tokenizer of `{vocabulary.origin.label}`: its ids have gaps",
            vocabulary.origin.span,
            f"`{lacking[0][1]}` would get another id than its row's",
            help=f"keep its tokens: `output(tokenizer={vocabulary.origin.label})`, without further `tokens`",
        )
    model["vocab"] = {**stored, **{e["content"]: e["id"] for e in entries}}
    return data


def _ids_when_loaded(entries: list[dict[str, Any]], stored: Any) -> list[int]:
    """The ids that the tokenizers library gives to added tokens: the vocabulary's own, else the
    next number, whatever the file says."""
    own = stored if isinstance(stored, dict) else {entry[0]: n for n, entry in enumerate(stored)}
    out: dict[str, int] = {}
    following = len(own)
    for entry in entries:
        token = entry["content"]
        if token not in out:
            out[token] = own.get(token, following)
            following = max(following, out[token] + 1)
    return [out[entry["content"]] for entry in entries]


def _flags_of_added(vocabulary: Vocabulary) -> dict[str, Mapping[str, bool] | None]:
    """Flags of the tokens that are added, from the model that each comes from, else the first that
    has any."""
    out: dict[str, Mapping[str, bool] | None] = {}
    for token in vocabulary.added:
        choice = vocabulary.choices.get(token)
        sources = []
        if isinstance(choice, Leaf | Token):
            holder, wanted = source_of(choice, token)
            sources = [(holder, token), (holder, wanted)] if holder is not None else []
        sources += [(m, token) for m in vocabulary.models]
        found = (vocabulary.tokenizers[m.number].flags.get(text) for m, text in sources)
        out[token] = next((f for f in found if f is not None), None)
    return out


def _entry(token: str, flags: Mapping[str, bool] | None) -> dict[str, Any]:
    own = flags or flags_of_a_plain_token()
    return {"content": token, **{flag: own[flag] for flag in FLAGS}}
