"""Which files of a checkpoint's folder hold its weights, which are copied with them, and which must
not be touched.

A folder is untrusted: what its index names or its links point to is used only where it stays inside
the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ...compiler.checkpoint.catalog import CatalogError
from ...grammar.records import dataclass
from ..files.faults import show, unreadable
from ..formats.containers import container_error
from .documents import read_json
from .shards import check_complete

INDEX_SUFFIX = ".safetensors.index.json"
PICKLED_INDEX = "pytorch_model.bin.index.json"
MAX_INDEX = 100 << 20
"""The longest index.json accepted, in bytes."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_OTHER_WEIGHTS = (*_PICKLES, ".safetensors", ".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".ot")
_PICKLED_STATES = re.compile(
    r"(training_args|optimizer(_\d+)?|scheduler(_\d+)?|scaler|sampler(_\d+)?|rng_state.*|random_states.*"
    r"|.*_optim_states|.*zero_pp_rank_.*)\.(bin|pt|pth|pkl)"
)
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TEMPLATES = "additional_chat_templates"


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds: names of weight files in order, the index's tensor-to-file map (empty
    where there is none) with its name, and the names of the other files."""

    weights: tuple[str, ...]
    index: str | None
    listed: Mapping[str, str]
    extras: tuple[str, ...]


def survey(folder: str, allow_pickle: bool = False) -> Folder:
    """Looks through `folder`, an absolute path. Pickles are its weights where it has no others and
    they are allowed.

    Raises CatalogError: E0405 where it holds pickles alone, E0406 where it holds no weights, E0408
    for a link that leaves it, E0431 to E0433 for an index that is not sound, E0460 where some of
    its shards are missing, E0462 where its weights are in a format that is not read.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir())
    except OSError as error:
        raise unreadable(folder, error) from error
    index = _index_name(names)
    listed: Mapping[str, str] = {}
    if "model.safetensors" in names:
        weights, index = ["model.safetensors"], None
    elif index is not None:
        listed = _read_index(os.path.join(folder, index))
        weights = sorted(set(listed.values()))
        _check_shards(folder, index, weights)
    else:
        weights = [name for name in names if name.endswith(".safetensors") and not name.startswith((".", "adapter_"))]
    if not weights and allow_pickle:
        weights, index, listed = _pickles(folder, names)
    if not weights:
        _fail_empty(folder, names)
    check_complete(folder, weights, index)
    extras = [name for name in names if not name.startswith(".") and not _is_weight(name)] + _templates(folder)
    for name in (*weights, *extras, *([index] if index else [])):
        check_inside(folder, name)
    return Folder(tuple(weights), index, listed, tuple(extras))


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


def pickled(name: str) -> bool:
    """Whether a file of this name or path holds weights as a pickle."""
    return name.endswith(_PICKLES) and not _PICKLED_STATES.fullmatch(os.path.basename(name))


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


def _pickles(folder: str, names: list[str]) -> tuple[list[str], str | None, Mapping[str, str]]:
    """The pickled weights of a folder, their index and what it lists."""
    if "pytorch_model.bin" in names:
        return ["pytorch_model.bin"], None, {}
    if PICKLED_INDEX in names:
        listed = _read_index(os.path.join(folder, PICKLED_INDEX))
        weights = sorted(set(listed.values()))
        _check_shards(folder, PICKLED_INDEX, weights)
        return weights, PICKLED_INDEX, listed
    return [name for name in names if pickled(name) and not name.startswith((".", "adapter_"))], None, {}


def _is_weight(name: str) -> bool:
    return name.endswith((*_OTHER_WEIGHTS, ".index.json"))


def _index_name(names: list[str]) -> str | None:
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX) and not name.startswith(".")]
    if "model" + INDEX_SUFFIX in indexes:
        return "model" + INDEX_SUFFIX
    return indexes[0] if len(indexes) == 1 else None


def _templates(folder: str) -> list[str]:
    try:
        return sorted(f"{_TEMPLATES}/{e.name}" for e in os.scandir(os.path.join(folder, _TEMPLATES)) if e.is_file())
    except OSError:
        return []  # most models have no such folder


def _read_index(path: str) -> dict[str, str]:
    index = read_json(path, limit=MAX_INDEX, code="E0431")
    listed = index.get("weight_map")
    if type(listed) is not dict or not all(type(file) is str for file in listed.values()):
        raise CatalogError("E0431", "`weight_map` does not map tensor names to file names", file=path)
    return listed


def _check_shards(folder: str, index: str, shards: list[str]) -> None:
    kind = "pickled weight" if index == PICKLED_INDEX else "safetensors"
    for shard in shards:
        parts = shard.split("/")
        plain = all(part not in ("", ".", "..") for part in parts) and shard.isprintable() and "\\" not in shard
        right = pickled(shard) if index == PICKLED_INDEX else shard.endswith(".safetensors")
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
    if any(name.startswith("adapter_") for name in names):
        help = "this is an adapter: name its base with `model(…)`, and add `lora(…)` of this folder to it"
    raise CatalogError("E0406", "no safetensors file in this folder", file=folder, help=(help,))
