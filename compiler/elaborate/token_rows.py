"""Tokens whose id is past the last row of the tensors with a row for each token.

A tokenizer that got tokens while the model was never resized has such; CodeLlama-Python's is one.
What looks one up fails, or reads what lies behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...grammar.diagnostic import Diagnostic, finding
from ...grammar.literals import write_string
from ..checkpoint.catalog import Catalog, CatalogError
from ..checkpoint.documents import is_text, json_beside
from ..checkpoint.model import Model
from ..graph.graph import Output
from ..ops.shapes import elements, shape_text

_MOST_NAMED = 5
_LONGEST_NAMED = 40

_BEGINNING = 1 << 20
"""How much of tokenizer.json is looked at for added tokens, in bytes; the tokenizers library writes
them first."""


def rows_of(model: Model, name: str) -> int | None:
    """The rows of a model's vocabulary tensor; None where it has none of that name."""
    found = model.find(name)
    return found[1].shape[0] if found is not None and found[1].shape else None


def fewest_rows(model: Model) -> tuple[int | None, str]:
    """The rows of the vocabulary tensor that has the fewest, and its name; None where the model has
    no such tensor."""
    found = [(rows, name) for name in model.family.vocabulary if (rows := rows_of(model, name)) is not None]
    return min(found, default=(None, ""), key=lambda item: item[0])


def without_rows(model: Model, ids: Mapping[str, int], holders: Callable[[str], Sequence[str]]) -> Diagnostic | None:
    """W0584 for a model some of whose tokens have ids past its rows: where rows are reconciled it
    lacks those.

    `holders` tells which models have a row for a token.
    """
    rows, name = fewest_rows(model)
    past = _past(ids, rows)
    if rows is None or not past:
        return None
    one = len(past) == 1
    notes = [
        f"{_ids(past)}; here {'it counts as a token' if one else 'they count as tokens'} that `{model.label}` lacks"
    ]
    nowhere = [(n, token) for n, token in past if not holders(token)]
    if nowhere:
        notes.append(f"no model has a row for {_named(nowhere)}: zeros stand there")
    first = past[0][1]
    row = next(iter(holders(first)), '"zero"')
    return finding(
        "W0584",
        f"`{model.label}` has no row for {len(past):,} of its tokens: {_named(past)}",
        model.span,
        f"`{name}` has {rows} rows",
        notes=notes,
        help=f"say which row {'it has' if one else 'each has'}:"
        f" `output(tokens={{{write_string(first)}: token({row}, force=false)}})`",
    )


def left_at_their_size(template: Model, size: int, outputs: Iterable[Output]) -> Diagnostic | None:
    """W0586 for tensors that look as if they had an entry for each token, such as a bias of the
    logits, but are not among those that the family knows: they don't get the `size` of the output's
    vocabulary."""
    known = {name: found[1].shape for name in template.family.vocabulary if (found := template.find(name)) is not None}
    shapes = {shape for shape in known.values() if len(shape) > 1}
    rows = {shape[0] for shape in shapes} - {size} - {n for shape in shapes for n in shape[1:]}
    left = [o for o in outputs if o.name not in known and (elements(o.shape) in rows or o.shape in shapes)]
    left = [o for o in left if size not in o.shape]
    if not rows or not left:
        return None
    more = f" and {len(left) - 1} more" if left[1:] else ""
    return finding(
        "W0586",
        f"`{left[0].name}`{more} may have an entry for each token, and keeps its size",
        template.span,
        f"of the template it is {shape_text(left[0].shape)}",
        notes=f"the output's vocabulary has {size} rows, and an output with both may not load",
        help="keep the number of rows, with a `tokenizer` of as many tokens and without `pad_vocab_to`",
    )


def output_without_rows(
    catalog: Catalog, owner: Model, vocabulary: Iterable[str], outputs: Iterable[Output]
) -> Diagnostic | None:
    """W0584 for an output whose tokenizer, that of `owner` as it is, has added tokens past the rows
    of the output.

    Only added tokens are looked at, as to read the whole of a tokenizer takes more time and memory
    than many a merge.
    """
    names = set(vocabulary)
    found = [(o.shape[0], o.name) for o in outputs if o.name in names and o.shape]
    if not found:
        return None
    rows, name = min(found, key=lambda item: item[0])
    past = _past(_added(catalog, owner), rows)
    if not past:
        return None
    return finding(
        "W0584",
        f"the output's tokenizer has {len(past):,} token{'' if len(past) == 1 else 's'} without a row: {_named(past)}",
        owner.span,
        "the tokenizer of this model goes along",
        notes=f"{_ids(past)}, and `{name}` has {rows} rows: what looks one up fails",
        help=f"`output(tokenizer={owner.label})` gives every token a row",
    )


def _added(catalog: Catalog, model: Model) -> dict[str, int]:
    """Added tokens as far as small files, and the beginning of a large one, tell them.

    The files are copied unread, so that one which is not sound says nothing here.
    """
    checkpoint = model.checkpoint
    found: dict[Any, Any] = {}
    try:
        found |= _listed(catalog.beginning(checkpoint, "tokenizer.json", _BEGINNING) or "")
        for token, number in (json_beside(catalog, checkpoint, "added_tokens.json") or {}).items():
            found.setdefault(token, number)
        decoder = (json_beside(catalog, checkpoint, "tokenizer_config.json") or {}).get("added_tokens_decoder")
        for key, entry in decoder.items() if isinstance(decoder, dict) else ():
            if isinstance(entry, dict) and is_text(entry.get("content")) and key.isdecimal() and len(key) < 10:
                found.setdefault(entry["content"], int(key))
    except CatalogError:
        return {}
    return {token: number for token, number in found.items() if is_text(token) and type(number) is int}


def _listed(text: str) -> dict[Any, Any]:
    """The list `added_tokens` at the beginning of a tokenizer.json."""
    at = text.find('"added_tokens"')
    first = text.find("[", at)
    if at < 0 or first < 0:
        return {}
    try:
        entries, _ = json.JSONDecoder().raw_decode(text, first)
    except (ValueError, RecursionError):
        return {}
    return {e["content"]: e.get("id") for e in entries if isinstance(e, dict) and isinstance(e.get("content"), str)}


def _past(ids: Mapping[str, int], rows: int | None) -> list[tuple[int, str]]:
    """The tokens with ids past the rows, by id."""
    return [] if rows is None else sorted((n, token) for token, n in ids.items() if n >= rows)


def _named(past: Sequence[tuple[int, str]]) -> str:
    """The first of some tokens by name."""
    short = [t if len(t) <= _LONGEST_NAMED else t[:_LONGEST_NAMED] + "…" for _, t in past[:_MOST_NAMED]]
    more = len(past) - len(short)
    return ", ".join(f"`{t}`" for t in short) + (f" and {more:,} more" if more else "")


def _ids(past: Sequence[tuple[int, str]]) -> str:
    first, last = past[0][0], past[-1][0]
    return f"the id is {first}" if len(past) == 1 else f"the ids are from {first} to {last}"
