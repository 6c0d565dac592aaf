"""Which files of a folder are its weights, by their names: forms, indexes, and variants."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from ...compiler.checkpoint.catalog import CatalogError
from ...compiler.emit.companions import DOCUMENTS
from ...grammar.records import dataclass
from ..files.faults import show

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pth.tar", ".pt.tar", ".ckpt.tar")
_OTHER_WEIGHTS = (*_PICKLES, ".safetensors", ".gguf", ".h5", ".msgpack", ".onnx", ".npz", ".ot")
_PICKLED_STATES = re.compile(
    r"(training_args|optimizer(_\d+)?|scheduler(_\d+)?|scaler|sampler(_\d+)?|rng_state.*|random_states.*"
    r"|.*_optim_states|.*zero_pp_rank_.*)\.(bin|pt|pth|pkl)"
)
_INDEX = re.compile(r"(?P<stem>.+)\.index(\.(?P<variant>[\w-]+))?\.json")


def pickled(name: str) -> bool:
    """Whether a file of this name or path holds weights as a pickle."""
    base = os.path.basename(name)
    return name.endswith(_PICKLES) and base not in DOCUMENTS and not _PICKLED_STATES.fullmatch(base)


def is_weight(name: str) -> bool:
    """Whether a file of this name holds weights in some form, or is an index of such files."""
    return (name.endswith(_OTHER_WEIGHTS) and name not in DOCUMENTS) or _INDEX.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Kind:
    """A form of weights: `stems` are names that loaders look for, the first where several are
    there, `suffix` how these files end. `any_index`: an index of another stem counts too."""

    stems: tuple[str, ...]
    suffix: str
    any_index: bool
    holds: Callable[[str], bool]


SAFETENSORS = Kind(
    ("model", "diffusion_pytorch_model"), ".safetensors", True, lambda name: name.endswith(".safetensors")
)
PICKLED = Kind(("pytorch_model", "diffusion_pytorch_model"), ".bin", False, pickled)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The weight files of a folder, or the index that lists them; `stem` and `variant` say what
    they are called."""

    files: tuple[str, ...]
    index: str | None
    stem: str
    variant: str | None


def choose(folder: str, names: Sequence[str], kind: Kind, variant: str | None) -> Chosen | None:
    """The weights of a kind among the files of a folder, those of the `variant` where there are
    such, else the plain ones; None where there are none. Of a single variant that is all there is,
    that one.

    Raises CatalogError (E0483) where there are several and nothing plain.
    """
    visible = [name for name in names if not name.startswith((".", "adapter_"))]
    if variant:
        for stem in kind.stems:
            found = _called(visible, kind, stem, variant)
            if found is not None:
                return found
    for stem in kind.stems:
        found = _called(visible, kind, stem, None)
        if found is not None and found.index is None:
            return found
    indexes = [name for name in visible if name.endswith(f"{kind.suffix}.index.json")]
    expected = [f"{stem}{kind.suffix}.index.json" for stem in kind.stems]
    index = next((name for name in expected if name in indexes), None)
    if index is None and kind.any_index and len(indexes) == 1:
        index = indexes[0]
    if index is not None:
        return Chosen((), index, _stem(index.partition(kind.suffix)[0]), None)
    variants = {name: called for name in visible if (called := _variant_of(name, kind)) is not None}
    loose = tuple(name for name in visible if kind.holds(name) and name not in variants)
    if loose:
        own = next((s for s in kind.stems if all(name.startswith(s) for name in loose)), kind.stems[0])
        return Chosen(loose, None, _stem(own), None)
    several = sorted({each for _, each in variants.values()})
    if len(several) > 1 or (several and variant is not None):
        raise no_variant(folder, variant, several)
    if not several:
        return None
    stem = next(stem for stem, _ in variants.values())
    return _called(visible, kind, stem, several[0])


def no_variant(folder: str, variant: str | None, there: Sequence[str]) -> CatalogError:
    """The error for a variant that is not there, or not asked for among several."""
    listed = ", ".join(f"`{show(each)}`" for each in there)
    if variant is None:
        message = f"the weights are here in the variants {listed} alone, so it is not known which are meant"
    else:
        message = f"there are no weights of the variant `{show(variant)}`"
    notes = (f"the variants here are {listed}",) if there and variant is not None else ()
    help = (
        (f'name one: `variant="{show(there[0])}"`',) if there else ("leave `variant` out: the plain weights are read",)
    )
    return CatalogError("E0483", message, file=folder, notes=notes, help=help)


def _called(names: Sequence[str], kind: Kind, stem: str, variant: str | None) -> Chosen | None:
    """The file, or the index, of this stem and variant."""
    middle = f".{variant}" if variant else ""
    file, index = f"{stem}{middle}{kind.suffix}", f"{stem}{kind.suffix}.index{middle}.json"
    if file in names:
        return Chosen((file,), None, _stem(stem), variant)
    if index in names:
        return Chosen((), index, _stem(stem), variant)
    shards = tuple(n for n in names if kind.holds(n) and _variant_of(n, kind) == (stem, variant)) if variant else ()
    return Chosen(shards, None, _stem(stem), variant) if shards else None


def _variant_of(name: str, kind: Kind) -> tuple[str, str] | None:
    """Stem and variant of a file, or of an index, that is called by one."""
    for stem in kind.stems:
        for pattern in (
            rf"{stem}\.([A-Za-z][\w-]*?)(-\d+-of-\d+)?{re.escape(kind.suffix)}",
            rf"{stem}-\d+-of-\d+\.([A-Za-z][\w-]*){re.escape(kind.suffix)}",
            rf"{stem}{re.escape(kind.suffix)}\.index\.([\w-]+)\.json",
        ):
            found = re.fullmatch(pattern, name)
            if found is not None:
                return stem, found[1]
    return None


def stem_of(file: str) -> str:
    """What an output's files are called in place of a file of this name."""
    return _stem(file.partition(".")[0])


def _stem(stem: str) -> str:
    """What an output's files are called in place of these: as its loaders look for them."""
    return stem if stem in SAFETENSORS.stems else SAFETENSORS.stems[0]
