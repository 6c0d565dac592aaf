"""The files around the weights: which are copied from beside an input, and which are written
anew."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from typing import Any

from ...grammar.diagnostic import Diagnostic
from ...grammar.records import dataclass
from ..checkpoint.catalog import Catalog
from ..checkpoint.documents import json_beside, json_text, said_of
from ..checkpoint.model import Model
from ..elaborate.elaborate import Elaboration
from ..elaborate.token_rows import left_at_their_size, output_without_rows
from ..elaborate.vocabulary import Vocabulary
from ..evaluate.settings import Settings
from ..plan.plan import Document, Tagalong
from .chat_template import CONFIGS, FILES, KEY, chat_templates, templates_of, written
from .config import config_text
from .part_configs import part_configs
from .token_ids import CONFIG, GENERATION, TokenIds, past_rows
from .tokenizer_files import tokenizer_files

TOKENIZER = (
    "tokenizer*",
    "tokenization_*.py",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "bpe.codes",
    "dict.txt",
    "normalizer.json",
    "tekken.json",
    "spiece.model",
    "spm.model",
    "sentencepiece*",
    "*.spm",
    "*.tiktoken",
    *FILES,
)
"""Names of tokenizer files; they come from `output(tokenizer=…)` where that is given."""

DOCUMENTS = ("spk_dict.pt", "mel_filters.npz")
"""Files that are called as weights are, and that a model is loaded with: voices, filters."""

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
"""What is never copied: other weights, training state, cards, and what is written anew."""


@dataclass(frozen=True, slots=True)
class Companions:
    """Files to copy, and texts to write, config.json first among them; `warnings` are about what
    they say."""

    tagalongs: tuple[Tagalong, ...] = ()
    documents: tuple[Document, ...] = ()
    warnings: tuple[Diagnostic, ...] = ()


def companions(catalog: Catalog, origin: Model, settings: Settings, elaboration: Elaboration) -> Companions:
    """The files beside the weights: config.json, generation config, tokenizer, processor, chat
    template, code.

    `origin` is the model whose config.json goes with the output's layout. The tokenizer's files are
    all of one model, and so are the chat template's. Raises MergecError: E0318, E0319, E0436.
    """
    vocabulary = elaboration.vocabulary
    owner = vocabulary.origin if vocabulary is not None else origin
    copied = _from(origin, tokenizer=False) | _from(owner, tokenizer=True)
    for part in elaboration.left:
        copied |= {name: f"{origin.checkpoint.location}/{name}" for name in part.files}
    documents: dict[str, str] = {}
    warnings: list[Diagnostic] = []
    config = origin.checkpoint.config
    outputs = elaboration.graph.outputs
    if vocabulary is None:
        about = output_without_rows(catalog, owner, elaboration.template.family.vocabulary, outputs)
    else:
        about = left_at_their_size(elaboration.template, vocabulary.size, outputs)
        if owner.number != origin.number:
            ids = TokenIds(vocabulary, origin, settings.config)
            if config is not None:
                config = ids.followed(config, CONFIG, () if vocabulary.united else (owner.config,))
            _generation(catalog, origin, ids, vocabulary, copied, documents)
            warnings += ids.warnings
        if config is not None:
            warnings += past_rows(config, vocabulary, owner, settings.config)
        documents |= {d.name: d.text for d in tokenizer_files(catalog, vocabulary)}
    warnings += [about] if about is not None else []
    if config is not None:
        text, uncounted = config_text(elaboration, settings, origin, config)
        documents = {CONFIG: text, **documents}
        warnings += uncounted
    documents |= part_configs(elaboration, origin)
    _chat_template(catalog, origin, owner, settings, copied, documents)
    return Companions(
        tuple(Tagalong(path, name) for name, path in sorted(copied.items()) if name not in documents),
        tuple(Document(name, text) for name, text in documents.items()),
        tuple(warnings),
    )


def _from(model: Model, *, tokenizer: bool) -> dict[str, str]:
    """The files of a model to copy, tokenizer files or all others: name to path."""
    location = model.checkpoint.location
    return {
        name: f"{location}/{name}"
        for name in sorted(model.checkpoint.extras)
        if _is(name, TOKENIZER) == tokenizer and (name in DOCUMENTS or not _is(name, LEFT_BEHIND))
    }


def _is(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a file is one of those that the patterns mean. What lies in a folder below goes along
    with the checkpoint, whatever it is called: it is only meant where a pattern has a folder
    too."""
    return any(fnmatch.fnmatchcase(name, p) for p in patterns if ("/" in name) == ("/" in p))


# --- ids of tokens


def _generation(
    catalog: Catalog,
    origin: Model,
    ids: TokenIds,
    vocabulary: Vocabulary,
    copied: dict[str, str],
    documents: dict[str, str],
) -> None:
    """generation_config.json with the ids of the output; the tokenizer's model's where the template
    has none."""
    owner = vocabulary.origin
    if GENERATION not in origin.checkpoint.extras:
        if GENERATION in owner.checkpoint.extras and not vocabulary.united:
            copied[GENERATION] = f"{owner.checkpoint.location}/{GENERATION}"
        return
    own = _read(catalog, origin, GENERATION)
    said: tuple[Mapping[str, Any], ...] = ()
    if not vocabulary.united:
        said = (_read(catalog, owner, GENERATION), owner.config)
    followed = ids.followed(own, GENERATION, said)
    if followed != own:
        documents[GENERATION] = json_text(followed)


# --- chat templates


def _chat_template(
    catalog: Catalog,
    origin: Model,
    owner: Model,
    settings: Settings,
    copied: dict[str, str],
    documents: dict[str, str],
) -> None:
    """Writes the chat template that is asked for, or sees that the one of the tokenizer's model is
    copied; takes out all others."""
    wanted = chat_templates(catalog, settings)
    emptied: tuple[str, ...] = CONFIGS
    if not wanted:
        if owner.number == origin.number:
            return
        emptied = tuple(name for name in CONFIGS if not _is(name, TOKENIZER))
        if not any(_is(name, FILES) for name in copied) and not _said_in(catalog, owner, "tokenizer_config.json"):
            with said_of(owner):
                wanted = written(templates_of(catalog, owner.checkpoint))
    if wanted:
        for name in [name for name in copied if _is(name, FILES)]:
            del copied[name]
        documents |= {d.name: d.text for d in wanted}
    for name in emptied:
        if name not in copied:
            continue
        model = owner if _is(name, TOKENIZER) else origin
        data = json.loads(documents[name]) if name in documents else _read(catalog, model, name)
        if KEY in data:
            documents[name] = json_text({key: value for key, value in data.items() if key != KEY})


def _said_in(catalog: Catalog, model: Model, name: str) -> bool:
    return bool(_read(catalog, model, name).get(KEY))


def _read(catalog: Catalog, model: Model, name: str) -> dict[str, Any]:
    """A JSON file of a model; empty where it has none."""
    with said_of(model):
        return json_beside(catalog, model.checkpoint, name) or {}
