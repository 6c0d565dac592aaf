"""From what people write to paths of the system, and the names they may have meant."""

from __future__ import annotations

import os

from ...grammar.suggest import near
from .faults import show


def native(text: str) -> str:
    """`text` of a recipe as a path: its UTF-8 bytes, also where the locale would spell names in
    another encoding."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def near_names(path: str, written: str) -> tuple[str, ...]:
    """Help for the missing `path`, which stands as `written`: the names in its folder that are most
    like its own."""
    parent, name = os.path.split(path)
    try:
        names = sorted(entry for entry in os.listdir(parent or os.curdir) if not entry.startswith("."))
    except OSError:
        return (f"there is no folder `{show(parent)}`",)
    close = near(name, names)
    prefix = written[: len(written.rstrip("/")) - len(name)]
    if not close:
        return (f"looked in `{show(parent or os.curdir)}`",)
    return ("did you mean " + " or ".join(f"`{show(prefix + other)}`" for other in close) + "?",)
