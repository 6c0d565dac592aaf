"""The files around the weights: which are copied from beside an input, and which are written anew."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from .catalog import Catalog
from .documents import is_text, json_beside, json_text, said_of
from .models import Model
from .plan import Document, Tagalong
from .settings import Settings
from .terms import Union
from .vocabulary import Vocabulary

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "*.tiktoken",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates",
)
"""Names of tokenizer files; they come from `output(tokenizer=…)` where that is given."""

LEFT_BEHIND = (
    "*.safetensors",
    "*.index.json",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.gguf",
    "*.onnx",
    "*.msgpack",
    "*.h5",
    "*.md",
    ".*",
    "config.json",
    "mergec.json",
    "training_args*",
    "trainer_state.json",
    "optimizer*",
    "scheduler*",
    "rng_state*",
)
"""What never goes along: other weights, training state, cards, and what is written anew."""


def companions(
    catalog: Catalog, template: Model, settings: Settings, vocabulary: Vocabulary | None
) -> tuple[list[Tagalong], list[Document]]:
    """Files to copy, and texts to write, beside config.json: generation config, tokenizer, processor, chat template,
    code."""
    chosen = settings.tokenizer
    owner: Model = chosen.models[0] if isinstance(chosen, Union) else chosen or template
    tagalongs = _from(template, lambda name: not _is(name, TOKENIZER))
    tagalongs += _from(owner, lambda name: _is(name, TOKENIZER))
    documents: list[Document] = []
    if vocabulary is not None and vocabulary.added:
        text = _with_tokens(catalog, vocabulary)
        if text is not None:
            documents.append(Document("tokenizer.json", text))
    template_text = _chat_template(catalog, settings)
    if template_text is not None:
        documents.append(Document("chat_template.jinja", template_text))
    written = {d.name for d in documents}
    return [t for t in tagalongs if t.name not in written], documents


def _is(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, p) for p in patterns)


def _from(model: Model, wanted: Callable[[str], bool]) -> list[Tagalong]:
    location = model.checkpoint.location
    return [
        Tagalong(f"{location}/{name}", name)
        for name in sorted(model.checkpoint.extras)
        if wanted(name) and not _is(name, LEFT_BEHIND) and "/" not in name
    ]


def _with_tokens(catalog: Catalog, vocabulary: Vocabulary) -> str | None:
    """The first model's tokenizer.json with the tokens of the others appended as added tokens."""
    data = json_beside(catalog, vocabulary.origin.checkpoint, "tokenizer.json")
    if data is None:
        return None
    own = vocabulary.ids[vocabulary.origin.label]
    first = max(own.values(), default=-1) + 1
    data["added_tokens"] = [
        *(data.get("added_tokens") or ()),
        *(
            {
                "id": first + k,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": False,
            }
            for k, token in enumerate(vocabulary.added)
        ),
    ]
    return json_text(data)


@functools.cache
def built_in_templates() -> Mapping[str, str]:
    """Chat templates by name."""
    files = sorted(Path(__file__).with_name("chat_templates").glob("*.jinja"))
    return {file.stem: file.read_text("utf-8") for file in files}


def _chat_template(catalog: Catalog, settings: Settings) -> str | None:
    choice = settings.chat_template
    if choice is None:
        return None
    if isinstance(choice, str):
        return built_in_templates().get(choice, choice)
    with said_of(choice):
        text = catalog.document(choice.checkpoint, "chat_template.jinja")
        if text is not None:
            return text
        found = (json_beside(catalog, choice.checkpoint, "tokenizer_config.json") or {}).get("chat_template")
    return found if is_text(found) else None
