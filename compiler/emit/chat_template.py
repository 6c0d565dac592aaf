"""Chat templates: where a model's files keep them, and how the output's are written so that there
are no others.

A tokenizer's are in chat_template.jinja with `additional_chat_templates/NAME.jinja`, else under
`chat_template` in tokenizer_config.json, as one text or as a list with names. Processors of older
checkpoints have chat_template.json, or the same key in processor_config.json, which hides all the
others from them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...grammar.diagnostic import error
from ..checkpoint.catalog import Catalog, Checkpoint
from ..checkpoint.documents import is_text, json_beside, said_of, unsound
from ..evaluate.settings import Settings
from ..plan.plan import Document

FOLDER = "additional_chat_templates"
FILES = ("chat_template.jinja", "chat_template.json", f"{FOLDER}/*.jinja")
"""Files that hold nothing else."""

KEY = "chat_template"
CONFIGS = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
"""Files that may hold one under `KEY`."""

_DEFAULT = "default"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def templates_of(catalog: Catalog, checkpoint: Checkpoint) -> dict[str, str]:
    """A model's chat templates by name, `default` first among them; empty where it has none.

    Raises CatalogError (E0436) where the file that has them is not sound.
    """
    found = {}
    for name in sorted(checkpoint.extras):
        if name.startswith(f"{FOLDER}/") and name.endswith(".jinja"):
            text = catalog.document(checkpoint, name)
            if text is not None:
                found[name.removeprefix(f"{FOLDER}/").removesuffix(".jinja")] = text
    single = catalog.document(checkpoint, "chat_template.jinja")
    if single is not None:
        found = {_DEFAULT: single, **found}
    if found:
        return found
    for name in ("chat_template.json", *CONFIGS):
        templates = _listed(checkpoint, name, (json_beside(catalog, checkpoint, name) or {}).get(KEY))
        if templates:
            return templates
    return {}


def _listed(checkpoint: Checkpoint, name: str, value: Any) -> dict[str, str]:
    """What a file says under `chat_template`: a text, a list of names and texts, or a map of
    them."""
    if isinstance(value, list):
        value = {
            entry["name"]: entry.get("template")
            for entry in value
            if isinstance(entry, dict) and isinstance(entry.get("name"), str)
        }
    if not isinstance(value, Mapping):
        value = {_DEFAULT: value} if is_text(value) else {}
    for key, text in value.items():
        if not is_text(text) or not _NAME.fullmatch(key):
            raise unsound(checkpoint, name, f"`{key[:60]}` is no name and text of a chat template")
    return dict(value)


@functools.cache
def built_in_templates() -> Mapping[str, str]:
    """Chat templates by name."""
    files = sorted(Path(__file__).with_name("chat_templates").glob("*.jinja"))
    return {file.stem: file.read_text("utf-8") for file in files}


def chat_templates(catalog: Catalog, settings: Settings) -> list[Document]:
    """The files of the chat template that the recipe asks for; none where it asks for none.

    Raises MergecError: E0318 where it asks for that of a model that has none.
    """
    choice = settings.chat_template
    if choice is None:
        return []
    if isinstance(choice, str):
        return [Document("chat_template.jinja", built_in_templates().get(choice, choice))]
    with said_of(choice):
        found = templates_of(catalog, choice.checkpoint)
    if not found:
        raise error(
            "E0318",
            f"`{choice.label}` has no chat template",
            settings.spans["chat_template"],
            "asked for here",
            notes="none is in its chat_template.jinja, chat_template.json or tokenizer_config.json",
            help="name another model, or one that is known: " + ", ".join(f"`{n}`" for n in built_in_templates()),
        )
    return written(found)


def written(templates: Mapping[str, str]) -> list[Document]:
    """Templates as files in the form that all current loaders know."""
    return [
        Document("chat_template.jinja" if name == _DEFAULT else f"{FOLDER}/{name}.jinja", text)
        for name, text in templates.items()
    ]
