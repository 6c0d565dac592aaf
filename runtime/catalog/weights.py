"""What a weight file says of its tensors, whatever its format."""

from __future__ import annotations

import importlib

from ..formats.safetensors import Header, read_header
from .folders import pickled


def read_weights(path: str, file: int = 0) -> Header:
    """The header of the weight file at `path`; its tensors get `file` as their file's index.

    The name determines the format. Whether pickles may be read is checked before. Raises
    CatalogError.
    """
    if not pickled(path):
        return read_header(path, file)
    # the interpreter of pickles is not loaded where there are none
    found: Header = importlib.import_module("..formats.pickled.header", __package__).read_pickle(path, file)
    return found
