"""What a weight file says of its tensors, whatever its format."""

from __future__ import annotations

import importlib

from ..formats.safetensors import Header, read_header
from .folders import pickled


def read_weights(path: str, file: int = 0) -> Header:
    """The header of the weight file at `path`; its tensors get `file` as their file's index.

    The name tells the format. Whether pickles may be read is asked before. Raises CatalogError.
    """
    if not pickled(path):
        return read_header(path, file)
    # the machine that reads pickles is left alone by all who have none
    found: Header = importlib.import_module("..formats.pickled.header", __package__).read_pickle(path, file)
    return found
