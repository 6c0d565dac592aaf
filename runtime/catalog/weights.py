"""What a weight file says of its tensors, whatever its format."""

from __future__ import annotations

import importlib

from ...compiler.checkpoint.catalog import CatalogError
from ..formats.safetensors import Header, read_header
from .weight_names import pickled


def read_weights(path: str, file: int = 0, key: str | None = None) -> Header:
    """The header of the weight file at `path`; its tensors get `file` as their file's index. Of a
    pickle those under `key`.

    The name determines the format. Whether pickles may be read is checked before. Raises
    CatalogError.
    """
    if not pickled(path):
        if key is not None:
            message = "a safetensors file has no keys with weights below them: all its tensors are by name"
            help = ("leave `key` out; names that all begin alike are made others with `rename`",)
            raise CatalogError("E0484", message, file=path, help=help)
        return read_header(path, file)
    # the interpreter of pickles is not loaded where there are none
    found: Header = importlib.import_module("..formats.pickled.header", __package__).read_pickle(path, file, key)
    return found
