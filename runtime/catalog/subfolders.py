"""What below a checkpoint's folder belongs to it: parts with weights of their own, which its
documents name, and folders of documents and code.

Other folders may be anything: training state, weights in other forms, other checkpoints.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ...compiler.checkpoint.catalog import CatalogError
from ...compiler.emit.card import PROVENANCE
from ...grammar.records import dataclass
from .documents import read_text
from .weight_names import is_weight

PIPELINE = "model_index.json"
"""Names the components of a pipeline of diffusers."""

MODULES = "modules.json"
"""Names the modules of a model of sentence-transformers."""

_ROUTER = "router_config.json"
_TEMPLATES = "additional_chat_templates"
_SHOWS_DOCUMENTS = (
    "tokenizer_config.json",
    "tokenizer.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "feature_extractor_config.json",
)
_SHOWS_TRAINING = ("trainer_state.json", "training_args.bin", "trainer_config.json")
_MAX_DOCUMENT = 10 << 20
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Below:
    """`named`: folders that are parts of the checkpoint, relative to its own; `files`: files below
    that go along. `pipeline`: it consists of its parts alone."""

    named: tuple[str, ...]
    files: tuple[str, ...]
    pipeline: bool


def look_below(folder: str, names: Sequence[str]) -> Below:
    """What belongs to a checkpoint in `folder`, an absolute path, which has files of these
    names."""
    folders = _folders(folder)
    if not folders:
        return Below((), (), False)
    named = list(dict.fromkeys(_named(folder, names, folders)))
    files: list[str] = []
    for name in named:
        inner = [other for other in named if other.startswith(f"{name}/")]
        files += [f for f in _below(folder, name) if not any(f.startswith(f"{other}/") for other in inner)]
    code = any(name.endswith(".py") for name in names)
    for name in folders:
        if name not in named and not any(other.startswith(f"{name}/") for other in named):
            files += _documents(folder, name)
            files += [f for f in _below(folder, name) if f.endswith(".py")] if code else []
    return Below(tuple(named), tuple(dict.fromkeys(files)), PIPELINE in names and bool(named))


def _folders(folder: str) -> list[str]:
    try:
        found = (e.name for e in os.scandir(folder) if e.is_dir())
        return sorted(name for name in found if not name.startswith((".", "__")))
    except OSError:
        return []


def _named(folder: str, names: Sequence[str], folders: Sequence[str]) -> Iterator[str]:
    """The folders that a checkpoint's documents name as parts of it, and that there are."""
    if PIPELINE in names:
        index = _json(os.path.join(folder, PIPELINE))
        for name in index if isinstance(index, dict) else ():
            if name in folders:
                yield name
    elif MODULES in names:
        modules = _json(os.path.join(folder, MODULES))
        said = [m.get("path") for m in modules if isinstance(m, dict)] if isinstance(modules, list) else []
        paths = [path for path in said if isinstance(path, str) and (path == "" or _plain(path))]
        yield from (path for path in paths if path and os.path.isdir(os.path.join(folder, path)))
        for path in paths:
            yield from _routed(folder, path)


def _routed(folder: str, path: str) -> Iterator[str]:
    """The modules between which a router of sentence-transformers chooses."""
    config = _json(os.path.join(folder, path, _ROUTER))
    types = config.get("types") if isinstance(config, dict) else None
    for name in types if isinstance(types, dict) else ():
        inner = f"{path}/{name}" if path else str(name)
        if _plain(inner) and os.path.isdir(os.path.join(folder, inner)):
            yield inner


def _json(path: str) -> Any:
    """A document; None where it is none. Raises CatalogError (E0408 is the caller's to see to)."""
    if not os.path.isfile(path):
        return None
    try:
        return json.loads(read_text(path, limit=_MAX_DOCUMENT, code="E0436"))
    except (ValueError, RecursionError) as error:
        raise CatalogError("E0436", f"`{os.path.basename(path)}` can't be used: it is not JSON", file=path) from error


def _plain(path: str) -> bool:
    if not path.isprintable() or "\\" in path:
        return False
    parts = path.split("/")
    return len(parts) <= _DEEPEST and all(part not in ("", ".", "..") and not part.startswith(".") for part in parts)


def _below(folder: str, name: str, depth: int = 1) -> Iterator[str]:
    """The files in a folder and in those below it, but for weights and what is hidden."""
    place = os.path.join(folder, *name.split("/"))
    # a link could lead anywhere, round in circles too
    if os.path.islink(place):
        return
    try:
        entries = sorted(os.scandir(place), key=lambda e: e.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith((".", "__pycache__")) or not entry.name.isprintable() or "\\" in entry.name:
            continue
        if not entry.is_dir():
            if not (is_weight(entry.name) or _is_told_anew(entry.name)):
                yield f"{name}/{entry.name}"
        elif depth < _DEEPEST:
            yield from _below(folder, f"{name}/{entry.name}", depth + 1)


def _is_told_anew(name: str) -> bool:
    """Whether a file tells how that which it lies beside was made: an output has its own."""
    return name == PROVENANCE or name.lower().endswith(".md")


def _documents(folder: str, name: str) -> Iterator[str]:
    """The files of a folder of chat templates, of a tokenizer or of a processor."""
    try:
        names = sorted(e.name for e in os.scandir(os.path.join(folder, name)) if e.is_file())
    except OSError:
        return
    shown = name == _TEMPLATES or any(each in names for each in _SHOWS_DOCUMENTS)
    if shown and not any(is_weight(each) or each in _SHOWS_TRAINING for each in names):
        for each in names:
            if not each.startswith(".") and not _is_told_anew(each):
                yield f"{name}/{each}"
