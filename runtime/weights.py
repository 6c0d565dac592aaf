"""What a weight file says of its tensors, whatever its format."""

from __future__ import annotations

from .folders import pickled
from .headers import Header, read_header
from .pickled.reading import read_pickle


def read_weights(path: str, file: int = 0) -> Header:
    """The header of the weight file at `path`; its tensors get `file` as their file's index.

    The name tells the format. Whether pickles may be read is asked before. Raises CatalogError.
    """
    return read_pickle(path, file) if pickled(path) else read_header(path, file)
