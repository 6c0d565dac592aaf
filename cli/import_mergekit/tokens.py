"""Tokenizer and chat template of a configuration as settings of the output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ...compiler.evaluate.settings import CHAT_TEMPLATES
from ...grammar.diagnostic import error
from ...grammar.literals import bare, write_string
from .checkpoints import Shelf
from .configuration import Merge, ModelRef, Text, TokenRule, first_of_each
from .recipe_text import ArgumentOrigin

Name = Callable[[ModelRef], str]
"""What a model is called in the recipe."""

Settings = list[tuple[str, ArgumentOrigin]]
"""Settings as `key=value`, and where each comes from."""


def tokenizer_settings(merge: Merge, name: Name, shelf: Shelf) -> tuple[Settings, list[str]]:
    """`tokenizer`, `tokens` and `pad_vocab_to`, and what is to be said above them. Raises
    MergecError (E0712)."""
    given = merge.tokenizer
    if given is None:
        return [], []
    settings: Settings = []
    models = first_of_each(m.plain for m in merge.models())
    origin = ArgumentOrigin(given.span)
    if isinstance(given.source, ModelRef):
        settings.append((f"tokenizer={name(given.source)}", ArgumentOrigin(given.source.span)))
    elif given.source == "base" or len(models) == 1:
        settings.append((f"tokenizer={name(models[0])}", origin))
    else:
        names = dict.fromkeys(name(m) for m in models)
        settings.append((f"tokenizer=union({', '.join(names)})", origin))
    rows = [f"{write_string(rule.text)}: {_row(rule, models, name, shelf)}" for rule in given.tokens]
    if rows:
        settings.append((f"tokens={{{', '.join(rows)}}}", origin))
    if given.pad is not None:
        settings.append((f"pad_vocab_to={given.pad}", origin))
    return settings, []


def _row(rule: TokenRule, models: list[ModelRef], name: Name, shelf: Shelf) -> str:
    forced = rule.force or _free(rule, models, shelf)
    token = rule.token
    if rule.model is not None and rule.token_id is not None:
        token = next((t for t, n in (shelf.tokens(rule.model) or {}).items() if n == rule.token_id), None)
        if token is None:
            message = f"`{rule.model}` has no tokenizer in which token {rule.token_id} could be looked up"
            raise error("E0712", message, rule.span, "by its number")
    source = '"zero"' if rule.model is None else name(rule.model)
    other = [write_string(token)] if rule.model is not None and token not in (None, rule.text) else []
    if forced and not other:
        return source
    return f"token({', '.join([source, *other, *([] if forced else ['force=false'])])})"


def _free(rule: TokenRule, models: list[ModelRef], shelf: Shelf) -> bool:
    """Whether a row that is not forced is every model's all the same: none has the token, or only
    the row's model."""
    held = [shelf.tokens(m) for m in models]
    if any(tokens is None for tokens in held):
        return False
    holders = [m for m, tokens in zip(models, held, strict=True) if tokens and rule.text in tokens]
    same = rule.model is not None and rule.token in (None, rule.text) and rule.token_id is None
    return not holders or (same and rule.model is not None and all(m.key == rule.model.plain.key for m in holders))


def chat_settings(merge: Merge, name: Name, shelf: Shelf) -> tuple[Settings, list[str]]:
    """`chat_template`, and what is to be said above it. Raises MergecError (E0712)."""
    given = merge.chat_template
    if given is None:
        return [], []
    origin = ArgumentOrigin(given.span)
    if given.value != "auto":
        _check_text(given)
        return [(f"chat_template={write_string(given.value)}", origin)], []
    found = [(m, text) for m in merge.models() if (text := shelf.chat_template(m))]
    if not found:
        return [], ["`chat_template: auto` finds no template in the inputs, or the inputs are not at hand"]
    common = Counter(text for _, text in found).most_common(1)[0][0]
    chosen = next(m for m, text in found if text == common)
    return [(f"chat_template={name(chosen)}", origin)], ["the chat template that most of the inputs have"]


def _check_text(given: Text) -> None:
    if given.value in CHAT_TEMPLATES or ("{" in given.value and len(given.value) >= 20):
        return
    message = f"`{bare(given.value[:40])}` is no chat template"
    notes = ("mergekit 0.1.5 brings none of the templates that it knows by name",)
    help_ = ("write the template's text, or `auto` for that of the inputs",)
    raise error("E0712", message, given.span, "a name", notes=notes, help=help_)
