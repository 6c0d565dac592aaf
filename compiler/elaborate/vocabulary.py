"""The output's vocabulary where inputs differ in theirs: which row of which model each output token
takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Any

from ...grammar.diagnostic import Diagnostic, error
from ...grammar.records import dataclass
from ..checkpoint.catalog import Catalog
from ..checkpoint.documents import said_of
from ..checkpoint.model import Model
from ..checkpoint.tokenizer import Tokenizer, read_tokenizer
from ..family.family import Family
from ..family.parts import renamed
from ..terms.terms import Leaf, Token, Union
from .token_rows import fewest_rows, rows_of, without_rows

Row = tuple[tuple[int, int], ...]
"""The rows (source, row) whose mean an output row is; none is zero."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a gather reads for one model: the models that it takes rows from, and runs (rows,
    terms)."""

    models: tuple[Model, ...]
    table: tuple[tuple[int, Row], ...]

    def is_identity(self, rows: int) -> bool:
        """Whether it is just the whole of its one source."""
        return len(self.table) == 1 and self.table[0] == (rows, ((0, 0),))


@dataclass(slots=True, eq=False)
class Vocabulary:
    """The output's tokens by id, and each model's own tokenizer, by the model's number: two may
    have one label.

    `tokens[i]` is the token of output row i (None: padding); `size` counts padding rows. `origin`
    is the model whose ids are unchanged, `added` the tokens behind its own, `united` whether they
    are those of a `union`. `mean_padding`: padding rows hold the mean of a model's other rows, not
    zeros. `warnings` are about tokens without a row.
    """

    tokens: list[str | None]
    tokenizers: Mapping[int, Tokenizer]
    models: tuple[Model, ...]
    base: int | None
    choices: Mapping[str, Any]
    added: tuple[str, ...]
    origin: Model
    united: bool
    mean_padding: bool = True
    warnings: tuple[Diagnostic, ...] = ()
    _runs: dict[tuple[int, tuple[int | None, ...]], Rows] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.tokens)

    @property
    def ids(self) -> Mapping[str, int]:
        """Token to id in the output."""
        own = self.tokenizers[self.origin.number]
        return {**own.ids, **{token: own.size + k for k, token in enumerate(self.added)}}

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """The rows without a token: first and end of each run."""
        empty = [i for i, token in enumerate(self.tokens) if token is None]
        firsts = [i for i in empty if i == 0 or self.tokens[i - 1] is not None]
        ends = [i + 1 for i in empty if i + 1 == len(self.tokens) or self.tokens[i + 1] is not None]
        return tuple(zip(firsts, ends, strict=True))

    def runs(self, model: Model, name: str) -> Rows:
        """The rows of one model's vocabulary tensor `name` under the output's ids.

        A token whose id is past the rows of a model's tensor counts there as one that the model
        lacks.
        """
        rows = {m.number: rows_of(m, renamed(name, model.family, m.family)) for m in self.models}
        key = (model.number, tuple(rows.values()))
        if key not in self._runs:
            have = {number: _Held(self.tokenizers[number].ids, count) for number, count in rows.items()}
            self._runs[key] = self._compress([self._row(model, token, have) for token in self.tokens])
        return self._runs[key]

    def read_for(self, models: Iterable[Model], names: Iterable[str], family: Family) -> list[Model]:
        """Models, and those that rows of their tensors are taken from which `family` calls by these
        names."""
        found = {m.number: m for m in models}
        for wanted in names:
            for model in tuple(found.values()):
                name = renamed(wanted, family, model.family)
                if model.find(name) is not None and model.family.vocabulary.get(name) == 0:
                    found |= {m.number: m for m in self.runs(model, name).models}
        return list(found.values())

    def _row(self, model: Model, token: str | None, have: Mapping[int, _Held]) -> list[tuple[int, int]]:
        if token is None:
            return []
        choice = self.choices.get(token)
        own = have[model.number].row(token)
        kept = choice is None or (isinstance(choice, Token) and not choice.force)
        if own is not None and kept:
            return [(model.number, own)]
        if choice is not None:
            holder, wanted = source_of(choice, token)
            row = have[holder.number].row(wanted) if holder is not None else None
            return [] if holder is None or row is None else [(holder.number, row)]
        holders = [(m.number, row) for m in self.models if (row := have[m.number].row(token)) is not None]
        return [h for h in holders if h[0] == self.base] or holders

    def _compress(self, rows: list[list[tuple[int, int]]]) -> Rows:
        order: dict[int, int] = {}
        by_number = {m.number: m for m in self.models}
        table: list[tuple[int, Row]] = []
        previous: Row = ()
        for row in rows:
            terms = tuple([(order.setdefault(number, len(order)), n) for number, n in row])
            following = tuple([(s, n + table[-1][0]) for s, n in previous]) if table else ()
            if table and terms == following and bool(terms) == bool(previous):
                table[-1] = (table[-1][0] + 1, previous)
            else:
                table.append((1, terms))
                previous = terms
        return Rows(tuple(by_number[number] for number in order), tuple(table))


@dataclass(frozen=True, slots=True)
class _Held:
    """The tokens of a model, as far as one of its tensors has rows for them; None: it has no such
    tensor."""

    ids: Mapping[str, int]
    rows: int | None

    def row(self, token: str) -> int | None:
        number = self.ids.get(token)
        return None if number is None or (self.rows is not None and number >= self.rows) else number


def source_of(choice: Any, token: str) -> tuple[Model | None, str]:
    """The model and the token whose row a choice of `tokens` takes; no model: zeros."""
    if isinstance(choice, Token):
        return choice.model, choice.token if choice.token is not None else token
    return (choice.model if isinstance(choice, Leaf) else None), token


def vocabulary_of(settings: Any, models: tuple[Model, ...], catalog: Catalog) -> Vocabulary | None:
    """Reconciles the vocabularies of the inputs as `output(tokenizer=…, tokens=…, pad_vocab_to=…)`
    says.

    None where the recipe says nothing about them. Raises MergecError: E0313 where a model has no
    tokenizer that can be read, or no row for a token that is asked for, E0436 where it has a
    tokenizer that is not sound.
    """
    if settings.tokenizer is None and not settings.tokens and settings.pad_vocab_to is None:
        return None
    distinct: dict[int, Model] = {}
    for model in models:
        distinct.setdefault(model.number, model)
    found: dict[int, Tokenizer] = {}
    for model in distinct.values():
        with said_of(model):
            tokenizer = read_tokenizer(catalog, model.checkpoint)
        if tokenizer is None or not tokenizer.ids:
            what = "no tokenizer.json or vocab.json" if tokenizer is None else "no tokens in its tokenizer"
            raise error(
                "E0313",
                f"`{model.label}` has {what} to reconcile vocabularies by",
                model.span,
                "no vocabulary",
                help="save its tokenizer in the fast format: `AutoTokenizer.from_pretrained(…).save_pretrained(…)`",
            )
        found[model.number] = tokenizer
    chosen = settings.tokenizer or settings.template
    origin: Model = chosen.models[0] if isinstance(chosen, Union) else chosen
    own = found[origin.number]
    tokens: list[str | None] = [None] * own.size
    for token, n in own.ids.items():
        tokens[n] = token
    more: list[str] = []
    if isinstance(chosen, Union):
        for model in chosen.models[1:]:
            ids = found[model.number].ids
            more.extend(sorted(ids, key=ids.__getitem__))
    more.extend(settings.tokens)
    added = tuple(dict.fromkeys(token for token in more if token not in own.ids))
    tokens.extend(added)
    _check_choices(settings, found)
    if settings.pad_vocab_to:
        tokens.extend([None] * (-len(tokens) % settings.pad_vocab_to))
    base = next((m.number for m in models if m.label == "base"), None)
    return Vocabulary(
        tokens,
        found,
        tuple(distinct.values()),
        base,
        settings.tokens,
        added,
        origin,
        isinstance(chosen, Union),
        settings.pad_rows == "mean",
        tuple(_without_rows(settings, distinct, found)),
    )


def _without_rows(settings: Any, models: Mapping[int, Model], found: Mapping[int, Tokenizer]) -> Iterator[Diagnostic]:
    """Warnings about tokens that models have no row for, but for those whose rows the recipe
    chooses."""
    held = {number: _Held(found[number].ids, fewest_rows(m)[0]) for number, m in models.items()}

    def holders(token: str) -> list[str]:
        return [models[number].label for number, tokens in held.items() if tokens.row(token) is not None]

    for number, model in models.items():
        left = {token: n for token, n in found[number].ids.items() if token not in settings.tokens}
        warning = without_rows(model, left, holders)
        if warning is not None:
            yield warning


def _check_choices(settings: Any, found: Mapping[int, Tokenizer]) -> None:
    """Sees that the rows that `tokens` asks for are there. Raises MergecError (E0313)."""
    for token, choice in settings.tokens.items():
        holder, wanted = source_of(choice, token)
        if holder is None:
            continue
        number, (rows, _) = found[holder.number].ids.get(wanted), fewest_rows(holder)
        if number is not None and (rows is None or number < rows):
            continue
        about = f"`{holder.label}` has no token `{wanted}`"
        if number is not None:
            about = f"`{holder.label}` has no row for its token `{wanted}`: the id is {number}, and it has {rows} rows"
        raise error("E0313", about, settings.spans["tokens"], "asked for here", help='a row of zeros is `"zero"`')
