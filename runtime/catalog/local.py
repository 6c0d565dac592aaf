"""The catalog over real files: local checkpoints by their headers, small documents, `use`d recipes.

Hub repositories are not opened here: their ids are distinguished from paths, and refused with a
message that says what to do.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...compiler.checkpoint.catalog import OWN, CatalogError, Checkpoint, Part, StoredTensor, refuse_revision
from ...compiler.checkpoint.dtypes import SIZES
from ..files.compare import is_transpose, same_ranges
from ..files.faults import show, unreadable
from ..files.opening import as_it_is
from ..files.paths import native, near_names
from ..formats.containers import container_of
from ..formats.safetensors import Header
from .adapter_files import ADAPTER_CONFIG, ADAPTER_PICKLE, ADAPTER_WEIGHTS, no_adapter
from .documents import read_beginning, read_json, read_text
from .folders import Weights, check_inside, pickle_error, survey
from .weight_names import pickled, stem_of
from .weights import read_weights

MAX_CONFIG = 10 << 20
"""The longest config.json accepted, in bytes."""

MAX_DOCUMENT = 64 << 20
"""The longest document or library accepted, in bytes."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class LocalCatalog:
    """Implements `compiler.catalog.Catalog` over the file system. A checkpoint is read once and
    then kept.

    `allow_pickle`: weights that PyTorch pickled are read too, as data; nothing that they name is
    run.
    """

    def __init__(self, *, allow_pickle: bool = False) -> None:
        self._allow_pickle = allow_pickle
        self._open: dict[tuple[str, str | None, str | None], Checkpoint] = {}

    def open(
        self,
        source: str,
        *,
        revision: str | None,
        subfolder: str | None,
        near: str,
        key: str | None = None,
        variant: str | None = None,
    ) -> Checkpoint:
        """The checkpoint in the folder or file `source`, relative to the folder of the recipe
        `near`.

        Raises CatalogError: E0401 where there is nothing, E0464 for a revision, E0403 to E0409
        where it can't be used, E0410 to E0429 for an unsound header, E0430 to E0435 for an unsound
        config or index, E0440 to E0448 for an unsound pickle, E0483 and E0484 for a variant or a
        key that is not there.
        """
        location = _location(source, revision, subfolder, near)
        which = (location, key, variant)
        if which not in self._open:
            read = _read_folder if os.path.isdir(location) else _read_file
            self._open[which] = read(location, self._allow_pickle, key, variant)
        return self._open[which]

    def adapter(self, source: str, *, revision: str | None, subfolder: str | None, near: str) -> Checkpoint:
        """The adapter in the folder `source`: adapter_config.json and adapter_model.safetensors, or
        else adapter_model.bin where pickles are allowed.

        Raises CatalogError: E0450 where these are not there, E0459 where an adapter of another tool
        is, E0451 for a config that is no JSON, else as `open` does.
        """
        location = _location(source, revision, subfolder, near)
        stored = ADAPTER_WEIGHTS
        if self._allow_pickle and not os.path.lexists(os.path.join(location, stored)):
            stored = ADAPTER_PICKLE if os.path.lexists(os.path.join(location, ADAPTER_PICKLE)) else stored
        for name in (ADAPTER_CONFIG, stored):
            if not os.path.lexists(os.path.join(location, name)):
                pickle = os.path.join(location, ADAPTER_PICKLE)
                if name == ADAPTER_WEIGHTS and os.path.exists(pickle):
                    raise pickle_error(pickle, ADAPTER_PICKLE)
                raise no_adapter(location, source, name)
        config = read_json(check_inside(location, ADAPTER_CONFIG), limit=MAX_CONFIG, code="E0451")
        weights = check_inside(location, stored)
        return _checkpoint(location, [(OWN, (read_weights(weights),))], config)

    def same_bytes(
        self,
        checkpoint: Checkpoint,
        first: str,
        second: str,
        *,
        other: Checkpoint | None = None,
        turned: bool = False,
    ) -> bool | None:
        """Whether two stored tensors hold equal bytes, whatever their shapes; `turned`: one as a
        matrix, the other as its transpose.

        Raises CatalogError: E0403 where a file can't be read, E0409 where it has changed.
        """
        one, two = checkpoint.tensors[first], (other or checkpoint).tensors[second]
        if one.nbytes != two.nbytes or (turned and (one.dtype, one.shape[:1]) != (two.dtype, two.shape[-1:])):
            return False
        files = checkpoint.files[one.file], (other or checkpoint).files[two.file]
        if not turned and (files[0].path, one.start) == (files[1].path, two.start):
            return True
        descriptors: list[int] = []
        file = files[0]
        try:
            for file in files:
                descriptors.append(os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
                if file.change(as_it_is(file.path, os.fstat(descriptors[-1]))) is not None:
                    raise CatalogError("E0409", "file has changed since its header was read", file=file.path)
            if turned:
                matrix = one.shape[0], math.prod(one.shape[1:])
                return is_transpose(descriptors[0], one.start, descriptors[1], two.start, matrix, SIZES[one.dtype])
            return same_ranges(descriptors[0], one.start, descriptors[1], two.start, one.nbytes)
        except EOFError as error:
            raise CatalogError("E0409", "file has changed since its header was read", file=file.path) from error
        except OSError as error:
            raise unreadable(file.path, error) from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def document(self, checkpoint: Checkpoint, name: str) -> str | None:
        """The text of the file `name` next to the weights; None where there is none.

        Raises CatalogError: E0408 for a link that leaves the folder, E0436 for what is too long or
        not UTF-8.
        """
        if name not in checkpoint.extras:
            return None
        return read_text(check_inside(checkpoint.location, name), limit=MAX_DOCUMENT, code="E0436")

    def beginning(self, checkpoint: Checkpoint, name: str, nbytes: int) -> str | None:
        """The text of the first bytes of the file `name` next to the weights; None where there is
        none.

        Raises CatalogError: E0408 for a link that leaves the folder, E0436 for what is no regular
        file.
        """
        if name not in checkpoint.extras:
            return None
        return read_beginning(check_inside(checkpoint.location, name), nbytes, code="E0436")

    def library(self, path: str, *, near: str) -> tuple[str, str]:
        """Absolute path and text of the recipe `path`, relative to the folder of the file `near`.

        Raises CatalogError: E0402 where there is none, E0403 or E0437 where it can't be read as
        text.
        """
        resolved = _resolve(path, near)
        if not os.path.exists(resolved):
            raise CatalogError("E0402", f"no file `{show(path)}`", help=near_names(resolved, path))
        return resolved, read_text(resolved, limit=MAX_DOCUMENT, code="E0437")


# --- from source to location ----------------------------------------------------------------------


def _locate(source: str, revision: str | None, near: str) -> str:
    """The absolute path that `source` names. Raises CatalogError E0401 or E0404."""
    resolved = _resolve(source, near)
    if os.path.exists(resolved):
        return resolved
    is_path = source.startswith((".", "/", "~")) or os.path.isdir(os.path.dirname(resolved))
    if not is_path and _HUB_ID.fullmatch(source):
        folder = source.rpartition("/")[2]
        download = f"hf download {source} --local-dir {folder}"
        download += f" --revision {shlex.quote(show(revision))}" if revision is not None else ""
        raise CatalogError(
            "E0404",
            f"`{source}` is not a local folder, and Hub repositories can't be opened yet",
            help=(f'download it with `{download}` and write `model("./{folder}")`',),
        )
    raise CatalogError("E0401", f"no checkpoint at `{show(source)}`", help=near_names(resolved, source))


def _location(source: str, revision: str | None, subfolder: str | None, near: str) -> str:
    location = _locate(source, revision, near)
    refuse_revision(show(source), revision)
    return location if subfolder is None else _below(location, subfolder)


def _resolve(path: str, near: str) -> str:
    if "\0" in path:
        raise CatalogError("E0401", f"`{show(path)}` is not a path")
    return os.path.abspath(os.path.join(os.path.dirname(near), os.path.expanduser(native(path))))


def _below(location: str, subfolder: str) -> str:
    if os.path.isabs(subfolder) or ".." in subfolder.split("/") or "\0" in subfolder:
        raise CatalogError("E0407", f"subfolder `{show(subfolder)}` leads out of the checkpoint")
    below = os.path.join(location, *native(subfolder).split("/"))
    if not os.path.isdir(below):
        message = f"no subfolder `{show(subfolder)}` in `{show(location)}`"
        raise CatalogError("E0401", message, help=near_names(below.rstrip("/"), subfolder))
    return os.path.abspath(below)


# --- from location to checkpoint ------------------------------------------------------------------


def _read_file(path: str, allow_pickle: bool, key: str | None, variant: str | None) -> Checkpoint:
    name = os.path.basename(path)
    if pickled(name) and not allow_pickle:
        raise pickle_error(path, name)
    if not (pickled(name) or name.endswith(".safetensors")):
        found = container_of([name])
        notes = (f"by its name it is {found[0].title}",) if found else ()
        help = found[0].convert if found else "name a folder, or a file that ends in `.safetensors`"
        raise CatalogError("E0407", f"`{show(name)}` is not a safetensors file", file=path, notes=notes, help=(help,))
    if variant is not None:
        way = "name the file of that variant, without `variant`"
        raise CatalogError("E0483", "one file has no variants: those are files of a folder", file=path, help=(way,))
    part = Part("", stem_of(name))
    return replace(_checkpoint(path, [(part, (read_weights(path, 0, key),))]), chosen=(key, variant))


def _read_folder(location: str, allow_pickle: bool, key: str | None, variant: str | None) -> Checkpoint:
    folder = survey(location, allow_pickle, variant)
    parts: list[tuple[Part, tuple[Header, ...]]] = []
    count = 0
    for found in folder.weights:
        place = os.path.join(location, *found.part.folder.split("/")) if found.part.folder else location
        headers = tuple(read_weights(os.path.join(place, n), count + k, key) for k, n in enumerate(found.weights))
        _check_agreement(place, found, headers)
        parts.append((found.part, headers))
        count += len(headers)
    places = [("", "config.json"), *((p.folder, f"{p.folder}/config.json") for p, _ in parts if p.folder)]
    configs = {
        at: read_json(os.path.join(location, *name.split("/")), limit=MAX_CONFIG, code="E0430")
        for at, name in places
        if name in folder.extras
    }
    config = configs.pop("", None)
    return replace(_checkpoint(location, parts, config, folder.extras), below=configs, chosen=(key, variant))


def _check_agreement(location: str, folder: Weights, headers: tuple[Header, ...]) -> None:
    """Sees that each tensor is in one file alone, and in that which the index says."""
    owner: dict[str, int] = {}
    for file, header in enumerate(headers):
        owner.update(dict.fromkeys(header.tensors, file))
    if len(owner) != sum(len(header.tensors) for header in headers):
        seen: dict[str, str] = {}
        for weights, header in zip(folder.weights, headers, strict=True):
            for name in header.tensors:
                if name in seen:
                    message = f"tensor `{show(name)}` is in both `{show(seen[name])}` and `{show(weights)}`"
                    help = () if folder.part.index else ("name one file in `model(…)` instead of the folder",)
                    raise CatalogError("E0435", message, file=location, help=help)
                seen[name] = weights
    for name, weights in folder.listed.items():
        file = owner.get(name, -1)
        if file < 0 or folder.weights[file] != weights:
            where = "in no file" if file < 0 else f"in `{show(folder.weights[file])}`"
            message = f"the index puts tensor `{show(name)}` in `{show(weights)}`, but it is {where}"
            index = os.path.basename(folder.part.index or "")
            raise CatalogError("E0434", message, file=os.path.join(location, index))


def _checkpoint(
    location: str,
    parts: Sequence[tuple[Part, tuple[Header, ...]]],
    config: Mapping[str, Any] | None = None,
    extras: tuple[str, ...] = (),
) -> Checkpoint:
    tensors: dict[str, StoredTensor] = {}
    metadata: dict[str, str] = {}
    headers = [header for _, some in parts for header in some]
    for part, some in parts:
        for header in some:
            if not part.folder:
                tensors.update(header.tensors)
                continue
            for name, tensor in header.tensors.items():
                full = part.prefix + name
                if full in tensors:
                    message = f"tensor `{show(name)}` in `{show(part.folder)}` is called as one of the folder above it"
                    raise CatalogError("E0435", message, file=location)
                tensors[full] = replace(tensor, name=full)
    for header in headers:
        metadata.update(header.metadata)
    files = tuple(header.file for header in headers)
    shared = any(header.shared for header in headers)
    passed_over = tuple(dict.fromkeys(name for header in headers for name in header.passed_over))
    where = tuple(part for part, _ in parts)
    return Checkpoint(location, files, tensors, config, metadata, extras, None, shared, passed_over, where)
