"""Small files of a checkpoint, read with a limit on size and on nesting."""

from __future__ import annotations

import json
from typing import Any

from ...compiler.checkpoint.catalog import CatalogError
from ..files.faults import show
from ..files.opening import opened

MAX_DEPTH = 64
"""The deepest nesting of JSON accepted."""


def read_text(path: str, *, limit: int, code: str) -> str:
    """The UTF-8 text of the file at `path`, which has at most `limit` bytes.

    Raises CatalogError: E0403 where it can't be read, `code` where it is too long or not text.
    """
    with opened(path, code) as (descriptor, status), open(descriptor, "rb", closefd=False) as file:
        if status.st_size > limit:
            raise CatalogError(code, f"file has {status.st_size} bytes, over the limit of {limit}", file=path)
        raw = file.read(limit)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CatalogError(code, f"file is not UTF-8 at byte {error.start}", file=path) from error


def read_beginning(path: str, nbytes: int, *, code: str) -> str:
    """The text of the first bytes of the file at `path`, without what is not UTF-8.

    Raises CatalogError: E0403 where it can't be read, `code` where it is no regular file.
    """
    with opened(path, code) as (descriptor, _), open(descriptor, "rb", closefd=False) as file:
        return file.read(nbytes).decode("utf-8", errors="ignore")


def read_json(path: str, *, limit: int, code: str) -> dict[str, Any]:
    """The JSON object in the file at `path`. Raises CatalogError like `read_text`, and `code` for
    anything else."""
    return parse_json(read_text(path, limit=limit, code=code), path, code=code)


def parse_json(text: str, path: str, *, code: str) -> dict[str, Any]:
    """The JSON object in the text of the file at `path`. Raises CatalogError `code` for anything
    else."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise CatalogError(code, "JSON is nested too deeply", file=path) from error
    except ValueError as error:
        raise CatalogError(code, f"not JSON: {show(str(error))}", file=path) from error
    if type(value) is not dict:
        raise CatalogError(code, "JSON is not an object", file=path)
    if _deeper(value, MAX_DEPTH):
        raise CatalogError(code, f"JSON is nested more than {MAX_DEPTH} deep", file=path)
    return value


def _deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
