"""Which files of a checkpoint's folder hold its weights, which are copied with them, and which must
not be touched.

A folder is untrusted: what its index names or its links point to is used only where it stays inside
the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ...compiler.checkpoint.catalog import CatalogError, Part
from ...grammar.records import dataclass
from ..files.faults import show, unreadable
from ..formats.containers import container_error
from .documents import read_json
from .shards import check_complete
from .subfolders import look_below
from .weight_names import PICKLED, SAFETENSORS, Kind, choose, is_weight, no_variant, pickled

MAX_INDEX = 100 << 20
"""The longest index.json accepted, in bytes."""

_MOST_NAMED = 5
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Weights:
    """The weight files of one part of a checkpoint, with the index's tensor-to-file map (empty
    where there is none), whose names are relative to the part's folder."""

    part: Part
    weights: tuple[str, ...]
    listed: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds: weights of all its parts, and the names of the other files."""

    weights: tuple[Weights, ...]
    extras: tuple[str, ...]


def survey(folder: str, allow_pickle: bool = False, variant: str | None = None) -> Folder:
    """Looks through `folder`, an absolute path. Pickles are its weights where it has no others and
    they are allowed. `variant`: those that are called so, where there are such.

    Raises CatalogError: E0405 where it holds pickles alone, E0406 where it holds no weights, E0408
    for a link that leaves it, E0431 to E0433 for an index that is not sound, E0460 where some of
    its shards are missing, E0462 where its weights are in a format that is not read, E0483 where it
    has no such variant, or several and nothing else.
    """
    names = _files(folder)
    below = look_below(folder, names)
    own = None if below.pipeline else _weights(folder, "", names, allow_pickle, variant)
    found = [own] if own is not None else []
    for name in below.named:
        inside = os.path.join(folder, name)
        check_inside(folder, name)
        there = _files(inside)
        weights = _weights(inside, name, there, allow_pickle, variant)
        if weights is None:
            _fail_unread(inside, there)
        else:
            found.append(weights)
    if not found:
        _fail_empty(folder, names)
    if variant is not None and all(weights.part.variant is None for weights in found):
        raise no_variant(folder, variant, ())
    extras = [name for name in names if not name.startswith(".") and not is_weight(name)]
    extras += [name for name in below.files if name not in extras]
    for weights in found:
        place = os.path.join(folder, *weights.part.folder.split("/")) if weights.part.folder else folder
        for name in (*weights.weights, *([os.path.basename(weights.part.index)] if weights.part.index else [])):
            check_inside(place, name)
    for name in extras:
        check_inside(folder, name)
    return Folder(tuple(found), tuple(extras))


def _files(folder: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir())
    except OSError as error:
        raise unreadable(folder, error) from error


def _weights(folder: str, name: str, names: list[str], allow_pickle: bool, variant: str | None) -> Weights | None:
    """The weights in a folder of these files; `name` is its name in the checkpoint's. None where
    there are none, of whatever variant, or pickles that are not allowed."""
    for kind in (SAFETENSORS, PICKLED) if allow_pickle else (SAFETENSORS,):
        chosen = choose(folder, names, kind, variant)
        if chosen is None:
            continue
        listed: Mapping[str, str] = {}
        weights = list(chosen.files)
        if chosen.index is not None:
            listed = _read_index(os.path.join(folder, chosen.index))
            weights = sorted(set(listed.values()))
            _check_shards(folder, chosen.index, weights, kind)
        check_complete(folder, weights, chosen.index)
        at = f"{name}/" if name else ""
        own = tuple(at + each for each in (*weights, *([chosen.index] if chosen.index else [])))
        index = at + chosen.index if chosen.index else None
        return Weights(Part(name, chosen.stem, chosen.variant, index, own), tuple(weights), listed)
    return None


def check_inside(folder: str, name: str) -> str:
    """The path of `name` in `folder`; a link may only lead elsewhere in the folder, or to a blob of
    the Hub's cache.

    Raises CatalogError E0408.
    """
    path = os.path.join(folder, name)
    real, base = os.path.realpath(path), os.path.realpath(folder)
    if real == path or os.path.commonpath([real, base]) == base:
        return path
    blobs, blob = os.path.split(real)
    repository, last = os.path.split(blobs)
    # a snapshot of the Hub's cache, `models--org--name/snapshots/REVISION`, is made of links into
    # the `blobs` next to `snapshots`; it has no business with those of other repositories
    snapshots = os.path.join(repository, "snapshots")
    if (
        last == "blobs"
        and os.path.basename(repository).startswith("models--")
        and _BLOB.fullmatch(blob)
        and os.path.commonpath([base, snapshots]) == snapshots
        and base != snapshots
    ):
        return path
    raise CatalogError(
        "E0408",
        f"`{show(name)}` is a link that leaves the model's folder",
        file=path,
        help=("put the file itself there, or name the file it points to in `model(…)`",),
    )


def pickle_error(path: str, name: str) -> CatalogError:
    """The refusal of weights in PyTorch's pickle format."""
    return CatalogError(
        "E0405",
        f"weights are in pickle format (`{show(name)}`), which can run code when it is read",
        file=path,
        help=(
            "convert them: `model.save_pretrained(folder)` of transformers writes safetensors",
            "or pass `--allow-pickle`: then they are read as data, and no code of theirs is run",
        ),
    )


def _read_index(path: str) -> dict[str, str]:
    index = read_json(path, limit=MAX_INDEX, code="E0431")
    listed = index.get("weight_map")
    if type(listed) is not dict or not all(type(file) is str for file in listed.values()):
        raise CatalogError("E0431", "`weight_map` does not map tensor names to file names", file=path)
    return listed


def _check_shards(folder: str, index: str, shards: list[str], form: Kind) -> None:
    kind = "safetensors" if form is SAFETENSORS else "pickled weight"
    for shard in shards:
        parts = shard.split("/")
        plain = all(part not in ("", ".", "..") for part in parts) and shard.isprintable() and "\\" not in shard
        right = form.holds(shard)
        if not plain or os.path.isabs(shard) or not right:
            message = f"index names `{show(shard)}`, which is not a {kind} file inside the folder"
            raise CatalogError("E0432", message, file=os.path.join(folder, index))
    missing = [shard for shard in shards if not os.path.lexists(os.path.join(folder, shard))]
    if missing:
        raise CatalogError(
            "E0433",
            f"`{show(missing[0])}` is missing" + (f", and {len(missing) - 1} more files" if missing[1:] else ""),
            file=os.path.join(folder, index),
            notes=(f"the index names {len(shards)} files",),
            help=("fetch the missing files again",),
        )


def _fail_empty(folder: str, names: list[str]) -> None:
    pickles = [name for name in names if pickled(name)]
    container = container_error(folder, training=bool(pickles))
    if container is not None:
        raise container
    if pickles:
        raise pickle_error(folder, pickles[0])
    help = "name a folder that holds `model.safetensors`, or `model.safetensors.index.json` with its shards"
    inside = _folders_with_weights(folder)
    if inside:
        listed = ", ".join(f"`{show(name)}`" for name in inside[:_MOST_NAMED]) + ", …" * (len(inside) > _MOST_NAMED)
        help = f'there are weights in folders below: {listed}; name one, `subfolder="{show(inside[0])}"`'
    if any(name.startswith("adapter_") for name in names):
        help = "this is an adapter: name its base with `model(…)`, and add `lora(…)` of this folder to it"
    raise CatalogError("E0406", "no safetensors file in this folder", file=folder, help=(help,))


def _folders_with_weights(folder: str) -> list[str]:
    found = []
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir() and not entry.name.startswith("."):
            try:
                found += [entry.name] if any(name.endswith(".safetensors") for name in os.listdir(entry.path)) else []
            except OSError:
                continue
    return found


def _fail_unread(folder: str, names: list[str]) -> None:
    """Raises CatalogError for a part of a checkpoint whose weights can't be read; one that has none
    is as good as any file beside them."""
    container = container_error(folder, training=False)
    if container is not None:
        raise container
    pickles = [name for name in names if pickled(name)]
    if pickles:
        raise pickle_error(os.path.join(folder, pickles[0]), pickles[0])
