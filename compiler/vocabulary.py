"""The output's vocabulary where inputs differ in theirs: which row of which model each output token takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from ..grammar.diagnostic import Diagnostic, Label, MergecError
from ..grammar.records import dataclass
from .catalog import Catalog
from .documents import said_of
from .models import Model
from .terms import Leaf, Token, Union
from .tokenizer import read_vocabulary

Row = tuple[tuple[int, int], ...]
"""The rows (source, row) whose mean an output row is; none is zero."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a gather reads for one model: the models that it takes rows from, and runs (rows, terms)."""

    models: tuple[Model, ...]
    table: tuple[tuple[int, Row], ...]

    def is_identity(self, rows: int) -> bool:
        """Whether it is just the whole of its one source."""
        return len(self.table) == 1 and self.table[0] == (rows, ((0, 0),))


@dataclass(slots=True, eq=False)
class Vocabulary:
    """The output's tokens by id, and each model's own ids.

    `tokens[i]` is the token of output row i (None: padding); `size` counts padding rows. `mean_padding`: they hold the
    mean of a model's other rows, not zeros.
    """

    tokens: list[str | None]
    ids: Mapping[str, Mapping[str, int]]
    models: tuple[Model, ...]
    base: str | None
    choices: Mapping[str, Any]
    added: tuple[str, ...]
    origin: Model
    mean_padding: bool = True
    _runs: dict[str, Rows] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.tokens)

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """The rows without a token: first and end of each run."""
        empty = [i for i, token in enumerate(self.tokens) if token is None]
        firsts = [i for i in empty if i == 0 or self.tokens[i - 1] is not None]
        ends = [i + 1 for i in empty if i + 1 == len(self.tokens) or self.tokens[i + 1] is not None]
        return tuple(zip(firsts, ends, strict=True))

    def runs(self, model: Model) -> Rows:
        """The rows of one model's vocabulary tensors under the output's ids."""
        if model.label not in self._runs:
            self._runs[model.label] = self._compress([self._row(model, token) for token in self.tokens])
        return self._runs[model.label]

    def _row(self, model: Model, token: str | None) -> list[tuple[str, int]]:
        if token is None:
            return []
        choice = self.choices.get(token)
        own = self.ids[model.label].get(token)
        kept = choice is None or (isinstance(choice, Token) and not choice.force)
        if own is not None and kept:
            return [(model.label, own)]
        if choice is not None:
            holder, wanted = _row_of(choice, token)
            return [] if holder is None else [(holder.label, self.ids[holder.label][wanted])]
        holders = [m for m in self.models if token in self.ids[m.label]]
        base = next((m for m in holders if m.label == self.base), None)
        if base is not None:
            return [(base.label, self.ids[base.label][token])]
        return [(m.label, self.ids[m.label][token]) for m in holders]

    def _compress(self, rows: list[list[tuple[str, int]]]) -> Rows:
        order: dict[str, int] = {}
        by_label = {m.label: m for m in self.models}
        table: list[tuple[int, Row]] = []
        previous: Row = ()
        for row in rows:
            terms = tuple([(order.setdefault(label, len(order)), n) for label, n in row])
            following = tuple([(s, n + table[-1][0]) for s, n in previous]) if table else ()
            if table and terms == following and bool(terms) == bool(previous):
                table[-1] = (table[-1][0] + 1, previous)
            else:
                table.append((1, terms))
                previous = terms
        return Rows(tuple(by_label[label] for label in order), tuple(table))


def _row_of(choice: Any, token: str) -> tuple[Model | None, str]:
    """The model and the token whose row a choice of `tokens` takes; no model: zeros."""
    if isinstance(choice, Token):
        return choice.model, choice.token if choice.token is not None else token
    return (choice.model if isinstance(choice, Leaf) else None), token


def vocabulary_of(settings: Any, models: tuple[Model, ...], catalog: Catalog) -> Vocabulary | None:
    """Reconciles the vocabularies of the inputs as `output(tokenizer=…, tokens=…, pad_vocab_to=…)` says.

    None where the recipe says nothing about them. Raises MergecError: E0313 where a model has no tokenizer that can be
    read, E0436 where it has one that is not sound.
    """
    if settings.tokenizer is None and not settings.tokens and settings.pad_vocab_to is None:
        return None
    distinct: dict[str, Model] = {m.label: m for m in models}
    ids: dict[str, dict[str, int]] = {}
    for model in distinct.values():
        with said_of(model):
            found = read_vocabulary(catalog, model.checkpoint)
        if found is None:
            raise MergecError(
                Diagnostic(
                    "E0313",
                    f"`{model.label}` has no tokenizer.json or vocab.json to reconcile vocabularies by",
                    (Label(model.span, "no vocabulary"),),
                    help=(
                        "save its tokenizer in the fast format: `AutoTokenizer.from_pretrained(…).save_pretrained(…)`",
                    ),
                )
            )
        ids[model.label] = found
    chosen = settings.tokenizer or settings.template
    origin: Model = chosen.models[0] if isinstance(chosen, Union) else chosen
    size = max(ids[origin.label].values(), default=-1) + 1
    tokens: list[str | None] = [None] * size
    for token, n in ids[origin.label].items():
        tokens[n] = token
    more: list[str] = []
    if isinstance(chosen, Union):
        for model in chosen.models[1:]:
            more.extend(sorted(ids[model.label], key=ids[model.label].__getitem__))
    more.extend(settings.tokens)
    added = tuple(dict.fromkeys(token for token in more if token not in ids[origin.label]))
    tokens.extend(added)
    for token, choice in settings.tokens.items():
        holder, wanted = _row_of(choice, token)
        if holder is not None and wanted not in ids[holder.label]:
            raise MergecError(
                Diagnostic(
                    "E0313",
                    f"`{holder.label}` has no token `{wanted}`",
                    (Label(settings.spans["tokens"], "asked for here"),),
                )
            )
    if settings.pad_vocab_to:
        tokens.extend([None] * (-len(tokens) % settings.pad_vocab_to))
    base = "base" if "base" in distinct else None
    return Vocabulary(
        tokens,
        ids,
        tuple(distinct.values()),
        base,
        settings.tokens,
        added,
        origin,
        settings.pad_rows == "mean",
    )
