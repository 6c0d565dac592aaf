"""A recipe's text: from a file, a pipe or a string."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ...grammar.diagnostic import MergecError, error
from ...grammar.error_codes import Exit
from ...grammar.parse import MAX_LENGTH
from ...grammar.source import Source
from ..files.faults import reason, show
from ..files.paths import near_names

MAX_RECIPE = 4 * MAX_LENGTH
"""The most bytes that are read of a recipe: a character of UTF-8 has at most four."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")


def read_source(recipe: str | os.PathLike[str] | Source) -> Source:
    """A recipe's text: a `str` is the text itself, a path (`pathlib.Path`) names the file, a
    `Source` is both.

    Raises MergecError (E0402, E0403).
    """
    if isinstance(recipe, Source):
        return recipe
    if isinstance(recipe, str):
        return Source("<recipe>", recipe)
    path = os.fspath(recipe)
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_RECIPE + 1)
    except OSError as error:
        raise _unread(path, error) from None
    return decode_recipe(path, raw)


def decode_recipe(name: str, raw: bytes) -> Source:
    """The recipe `name` from its bytes, of which one more than `MAX_RECIPE` is enough.

    Raises MergecError (E0403, E0480).
    """
    if len(raw) > MAX_RECIPE:
        raise _refused("E0480", f"the recipe has more than {MAX_RECIPE >> 20} MiB", name)
    try:
        # a mark that some editors put at the beginning of UTF-8 text is none of the text
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        help = (_in_a_recipe(name),) if name.endswith(_WEIGHTS) else ()
        raise _refused("E0403", "the recipe is not UTF-8 text", name, *help) from None
    return Source(name, text.replace("\r\n", "\n").replace("\r", "\n"))


def _unread(path: str, error: OSError) -> MergecError:
    if isinstance(error, FileNotFoundError):
        message = "the recipe can't be read: no such file or directory"
        return _refused("E0402", message, path, *near_names(os.path.abspath(path), path))
    if error.errno == errno.EISDIR:
        return _refused(
            "E0402", f"`{show(path)}` is a folder and not a recipe", path, _in_a_recipe(path), exit=Exit.INPUT
        )
    return _refused("E0402", f"the recipe can't be read: {reason(error)}", path, exit=Exit.INPUT)


def _in_a_recipe(path: str) -> str:
    label = Path(path).stem
    label = label if label.isidentifier() and label.isascii() else "base"
    return f'a recipe names a checkpoint: `let {label} = model("{show(path)}")`'


def _refused(code: str, message: str, path: str, *help: str, exit: Exit | None = None) -> MergecError:
    return error(code, message, help=help, file=path, exit=exit)
