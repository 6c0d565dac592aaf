"""What the inputs' headers tell the importer, where the inputs are available: names, depth, ties,
dtype, tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ...compiler.checkpoint.catalog import Catalog, CatalogError, Checkpoint
from ...compiler.checkpoint.layouts import recognise
from ...compiler.checkpoint.model import depths
from ...compiler.checkpoint.ties import is_tied
from ...compiler.checkpoint.tokenizer import read_tokenizer
from ...compiler.emit.chat_template import templates_of
from ...compiler.family.family import Family, family_for
from ...compiler.family.space import Space
from ...grammar.records import dataclass
from .configuration import Key, ModelRef


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A checkpoint by its headers. `names` are canonical; `dtypes` those of its stored tensors, in
    order."""

    checkpoint: Checkpoint
    family: Family
    names: tuple[str, ...]
    depths: Mapping[str, int]
    dtypes: tuple[str, ...]

    @property
    def space(self) -> Space:
        return Space(self.family, self.names, self.depths, "the model")

    def has_head(self) -> bool:
        """Whether there is an output head with storage of its own, as far as names and config
        tell."""
        aliases = [(rule, alias) for rule in self.family.ties for alias in rule.aliases if alias in self.names]
        heads = self.family.places.get("head", ())
        for rule, alias in aliases:
            if any(alias.startswith(h) for h in heads) and rule.config_key and rule.primary in self.names:
                return not is_tied(self.checkpoint.config, rule)
        return any(name.startswith(h) for name in self.names for h in heads)


class Shelf:
    """Opens inputs once. `folders` is where relative paths are looked for, in that order."""

    def __init__(self, catalog: Catalog, folders: tuple[Path, ...]) -> None:
        self.catalog, self._folders = catalog, folders
        self._known: dict[Key, Known | None] = {}

    def locate(self, ref: ModelRef) -> Path | None:
        """The existing file or folder that a reference names; None for a Hub name, or where nothing
        is there."""
        for folder in self._folders:
            # of os.path, which says of a path that can't be one that nothing is there
            path = os.path.abspath(os.path.join(folder, os.path.expanduser(ref.path)))
            if os.path.exists(path):
                return Path(path)
        return None

    def known(self, ref: ModelRef) -> Known | None:
        """What the headers say; None where they can't be read, which the compiler explains
        better."""
        key = ref.plain.key  # an adapter changes nothing that is read here
        if key not in self._known:
            self._known[key] = self._read(ref)
        return self._known[key]

    def _read(self, ref: ModelRef) -> Known | None:
        path = self.locate(ref)
        if path is None:
            return None
        try:
            checkpoint = self.catalog.open(str(path), revision=ref.revision, subfolder=None, near="")
        except CatalogError:
            return None
        family = family_for(checkpoint.config, checkpoint.tensors)
        names = tuple(recognise(checkpoint, family).views)
        dtypes = tuple(dict.fromkeys(t.dtype for t in checkpoint.tensors.values()))
        return Known(checkpoint, family, names, depths(Space(family, names, {}, "")), dtypes)

    def document(self, ref: ModelRef, name: str) -> str | None:
        """The text of a small file next to the weights; None where there is none, or it can't be
        read."""
        known = self.known(ref)
        try:
            return self.catalog.document(known.checkpoint, name) if known else None
        except CatalogError:
            return None

    def chat_template(self, ref: ModelRef) -> str | None:
        """A model's chat template, without the blank space around it."""
        known = self.known(ref)
        try:
            text = templates_of(self.catalog, known.checkpoint).get("default") if known else None
        except CatalogError:
            return None
        return text.strip() if text and text.strip() else None

    def tokens(self, ref: ModelRef) -> Mapping[str, int] | None:
        """Token to id of a model's tokenizer; None where it has none that can be read."""
        known = self.known(ref)
        try:
            found = read_tokenizer(self.catalog, known.checkpoint) if known else None
        except CatalogError:
            return None
        return found.ids if found else None
