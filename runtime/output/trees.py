"""Folders with all that is in them, and files; links are not followed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from contextlib import suppress


def within(path: str, folder: str) -> bool:
    """Whether an absolute path is that of a folder, or leads into it."""
    return os.path.commonpath([path, folder]) == folder


def is_folder(path: str) -> bool:
    """Whether there is a folder at `path`, and no link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def remove(path: str) -> None:
    """Removes a folder with all that is in it, or a file; nothing where there is none. Raises
    OSError."""
    if is_folder(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def remove_but(folder: str, keep: Collection[str]) -> None:
    """Removes all that is in a folder but these files, whose names are relative to it. Raises
    OSError."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        inside = {kept.removeprefix(f"{name}/") for kept in keep if kept.startswith(f"{name}/")}
        if inside and is_folder(path):
            remove_but(path, inside)
        elif name not in keep:
            remove(path)


def on_disk(folder: str) -> int:
    """Bytes of disk that the files in a folder take."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total
