"""The code that mergec makes values with, as a digest.

A version is not enough to tell it by: in a development install the code changes and the version
stays. What the language and its methods are made of (grammar, evaluation, `stdlib/*.mrg`) shows in
the graph, and so in every key; from the graph on, modules of the folders below decide what a number
is.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

FOLDERS = (
    "compiler/checkpoint",
    "compiler/graph",
    "compiler/ops",
    "compiler/pack",
    "compiler/plan",
    "compiler/schedule",
    "runtime/execute",
    "runtime/files",
    "runtime/machine",
    "runtime/native",
    "runtime/output",
    "runtime/portable",
    "runtime/portable/whole_tensor",
    "runtime/reduce",
    "runtime/stream",
)
"""The folders whose files count, without the folders in them: these read and write, and compute
nothing."""

_ENDINGS = (".py", ".pyc", ".c", ".h", ".so", ".pyd")


@functools.cache
def own_code() -> str:
    """The digest of mergec's own code: sources, and the compiled kernels as they lie there."""
    root = Path(__file__).resolve().parents[2]
    return digest_of(
        (f"{folder}/{name}", os.path.join(root, folder, name))
        for folder in FOLDERS
        for name in sorted(os.listdir(root / folder))
        if name.endswith(_ENDINGS)
    )


def digest_of(files: Iterable[tuple[str, str]], *facts: str) -> str:
    """One digest of files, each a name for it and its path, in their order, and of facts. What
    can't be read, or is no file, counts by its name."""
    total = hashlib.blake2b(repr(facts).encode(errors="backslashreplace"), digest_size=16)
    for name, path in files:
        data = b""
        with suppress(OSError):
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    data = file.read()
        total.update(f"{name!r} {len(data)}\n".encode(errors="backslashreplace"))
        total.update(data)
    return total.hexdigest()
