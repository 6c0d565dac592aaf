"""Ids of tokens in config.json and generation_config.json: eos, bos, pad and whatever else names a
token by its id.

They are those of the model whose tokenizer the output has. Where the files come from another model,
`followed` takes the ids from that model's own files; what these don't say, and all ids under a
`union`, is told by the tokens' texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...grammar.diagnostic import Diagnostic, finding
from ..checkpoint.model import Model
from ..checkpoint.tokenizer import ROLES
from ..elaborate.vocabulary import Vocabulary
from ..family.config_keys import config_value, homes

_SINGLE = re.compile(r"(.*_)?tokens?_(id|ids|index)")
_LISTS = frozenset({"suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids"})
_PAIRS = frozenset({"forced_decoder_ids", "sequence_bias"})
"""Lists of pairs, in which one is an id, or a list of ids, and the other is a position or a
bias."""
_MAPS = frozenset({"lang_to_id", "task_to_id"})
_OTHERS = ("codebook_", "t2u_")
"""How keys begin that are about another vocabulary than the tokenizer's."""

CONFIG = "config.json"
GENERATION = "generation_config.json"

Path = tuple[str, ...]


def is_token_key(key: str) -> bool:
    """Whether a key of a config holds ids of tokens.

    >>> keys = ("eos_token_id", "image_token_index", "vocab_size", "codebook_pad_token_id")
    >>> [is_token_key(k) for k in keys]
    [True, True, False, False]
    """
    if key.startswith(_OTHERS):
        return False
    return bool(_SINGLE.fullmatch(key)) or key in _LISTS or key in _PAIRS or key in _MAPS


class TokenIds:
    """Brings ids in config files of the model `source` to the output's `vocabulary`.

    `given` is what the recipe says of config.json itself. What is lost is told in `warnings`.
    """

    def __init__(self, vocabulary: Vocabulary, source: Model, given: Mapping[str, Any]) -> None:
        self._source, self._vocabulary, self._given = source, vocabulary, given
        self._texts = {n: token for token, n in vocabulary.tokenizers[source.number].ids.items()}
        self._ids = vocabulary.ids
        owner = vocabulary.tokenizers[vocabulary.origin.number]
        roles = {} if vocabulary.united else owner.roles
        self._roles = {f"{role}_token_id": owner.ids[roles[role]] for role in ROLES if roles.get(role) in owner.ids}
        self.warnings: list[Diagnostic] = []

    def followed(self, data: Mapping[str, Any], file: str, said: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
        """The contents of a config file with the output's ids.

        `said` are the config files, the first counting most, of the model whose tokenizer the
        output has; under a union, none.
        """
        out = self._map(data, (), file, said)
        present = {path[-1] for path, _ in _token_keys(data)}
        for role in ROLES:
            key = f"{role}_token_id"
            value = next((v for config in said if (v := config.get(key)) is not None), None)
            if key not in present and value is not None:
                out[key] = value
        return out

    def _map(
        self, data: Mapping[str, Any], path: Path, file: str, said: tuple[Mapping[str, Any], ...]
    ) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in data.items():
            if is_token_key(key):
                out[key] = self._value((*path, key), value, file, said)
            elif isinstance(value, Mapping) and not _foreign(data, value):
                out[key] = self._map(value, (*path, key), file, said)
            else:
                out[key] = value
        return out

    def _value(self, path: Path, value: Any, file: str, said: tuple[Mapping[str, Any], ...]) -> Any:
        if file == CONFIG and any(homes(self._given, path)):
            return value
        found = [home[key] for config in said for home, key in list(homes(config, path))[:1]]
        known = next((v for v in found if v is not None), None)
        if known is not None:
            return known
        if said and path[-1] in self._roles:
            return self._roles[path[-1]]
        return None if found else self._translated(path, value, file)

    # --- by the tokens' texts

    def _translated(self, path: Path, value: Any, file: str) -> Any:
        key = path[-1]
        if key in _MAPS and isinstance(value, Mapping):
            return {k: n for k, v in value.items() if (n := self._remapped(v, path, file)) is not None}
        if key in _PAIRS and isinstance(value, list):
            side = 1 if key == "forced_decoder_ids" else 0
            return [pair for v in value if (pair := self._pair(v, side, path, file)) is not None]
        return self._remapped(value, path, file)

    def _pair(self, value: Any, side: int, path: Path, file: str) -> Any:
        if not isinstance(value, list) or len(value) != 2:
            return value
        remapped = self._remapped(value[side], path, file)
        if remapped is None and value[side] is not None:
            return None
        return [remapped if k == side else v for k, v in enumerate(value)]

    def _remapped(self, value: Any, path: Path, file: str) -> Any:
        """Ids in the output, in lists as deep as they are; None where a token is lost, and for a
        list without any."""
        if isinstance(value, list):
            remapped = [self._remapped(v, path, file) for v in value]
            # a phrase of which a token is lost is none; of single ids the others are as good as
            # before
            kept = [m for m, v in zip(remapped, value, strict=True) if m is not None or v is None]
            phrase = path[-1] in ("bad_words_ids", "force_words_ids", "sequence_bias") and len(kept) < len(value)
            single = not any(isinstance(v, list) for v in value)
            return None if value and (not kept or (phrase and single)) else kept
        if type(value) is not int or value < 0:
            return value
        token = self._texts.get(value)
        if token is None and file == CONFIG and value >= self._vocabulary.size:
            return value  # which `past_rows` tells
        if token is None:
            self._lost(path, file, f"{value}, which is no token of `{self._source.label}`", "left as it is", ())
            return value
        if token not in self._ids:
            help = f"add `{self._source.label}` to the `union`, which keeps the token"
            if not self._vocabulary.united:
                owner = self._vocabulary.origin.label
                help = f"`output(tokenizer=union({owner}, {self._source.label}))` keeps the token"
            self._lost(path, file, f"{value}, the token `{token}`, which the output lacks", "left out", (help,))
        return self._ids.get(token)

    def _lost(self, path: Path, file: str, what: str, then: str, help: tuple[str, ...]) -> None:
        if file == CONFIG:
            help = (*help, f"say what it is to be: `output(config={{{path[0]}: …}})`")
        self.warnings.append(
            finding(
                "W0585",
                f"`{'.'.join(path)}` in {file} of `{self._source.label}` is {what}",
                self._source.span,
                then,
                help=help,
            )
        )


def past_rows(
    config: Mapping[str, Any], vocabulary: Vocabulary, model: Model, given: Mapping[str, Any]
) -> list[Diagnostic]:
    """W0585 for ids in the output's config.json that are past its rows: a model may not even load
    with such."""
    found = []
    for path, value in _token_keys(config):
        past = [n for n in _numbers(value) if n >= vocabulary.size]
        if past and not any(homes(given, path)):
            found.append(
                finding(
                    "W0585",
                    f"`{'.'.join(path)}` in {CONFIG} is {past[0]}, and the output has {vocabulary.size} rows",
                    model.span,
                    "as this model says",
                    notes="rows behind the last token of a tokenizer are dropped",
                    help=f"say what it is to be: `output(config={{{path[0]}: …}})`",
                )
            )
    return found


def _numbers(value: Any) -> Iterator[int]:
    if type(value) is int:
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers(inner)


def _token_keys(data: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    for key, value in data.items():
        if is_token_key(key):
            yield (*path, key), value
        elif isinstance(value, Mapping) and not _foreign(data, value):
            yield from _token_keys(value, (*path, key))


def _foreign(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> bool:
    """Whether a config in another says that its vocabulary is another: an audio decoder's, say."""
    size, own = inner.get("vocab_size"), config_value(outer, "vocab_size")
    return size is not None and own is not None and size != own
