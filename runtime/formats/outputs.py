"""Weight files that runs have written, read back. The extension of a file's name determines its
format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...compiler.pack.format import OutputFormat
from ...compiler.pack.safetensors import SAFETENSORS
from ...grammar.records import dataclass
from .safetensors import Header, read_header

Listing = Mapping[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of every tensor of a file, by name."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How files of a format are read: by mergec, `header`, which raises CatalogError; and by the
    library that others read them with, `reference`, which raises what it will (None: there is no
    such library)."""

    format: OutputFormat
    header: Callable[[str], Header]
    reference: Callable[[str], Listing] | None = None


def _by_safetensors(path: str) -> Listing:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        names: list[str] = list(file.keys())
        slices = [file.get_slice(name) for name in names]
        return {n: (s.get_dtype(), tuple(s.get_shape())) for n, s in zip(names, slices, strict=True)}


READERS = (Reader(SAFETENSORS, read_header, _by_safetensors),)
"""One for each format that outputs are written in."""


def reader_of(path: str) -> Reader:
    """The reader of a weight file, by its name: the first one where that says nothing."""
    return next((reader for reader in READERS if path.endswith(reader.format.suffix)), READERS[0])


def is_weights(name: str) -> bool:
    """Whether a file of an output is one of weights."""
    return any(name.endswith(reader.format.suffix) for reader in READERS)
