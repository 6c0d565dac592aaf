"""Whether an installed mergec is this source tree, or was made of it as it is now."""

from __future__ import annotations

import filecmp
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_EXTENSION = (".so", ".pyd")


def stale(root: Path, installed: Path) -> list[str]:
    """The files, relative to the package, that an install lacks, has beyond the source tree, or has
    in another version; and compiled kernels that are older than what they are made of. `installed`
    may be the source tree itself.
    """
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    found = []
    if installed != root:
        here, there = set(packaged(root, settings)), set(packaged(installed, settings, gone=True))
        found += sorted(map(str, here ^ there))
        found += sorted(str(p) for p in here & there if not filecmp.cmp(root / p, installed / p, shallow=False))
    return found + list(_old_extensions(root, installed, settings))


def packaged(root: Path, settings: Mapping[str, Any], *, gone: bool = False) -> Iterator[Path]:
    """The files below `root` that an install holds beside what is compiled, as pyproject.toml lists
    its packages and their data. `gone`: also those in folders that it doesn't list any more.
    """
    data = settings["package-data"]
    if gone:
        patterns = {"*.py", *(p for each in data.values() for p in each)}
        yield from {file.relative_to(root) for p in patterns for file in root.rglob(p)}
        return
    for package in settings["packages"]:
        folder = root.joinpath(*package.split(".")[1:])
        for pattern in ("*.py", *data.get(package, ())):
            yield from (file.relative_to(root) for file in folder.glob(pattern))


def _old_extensions(root: Path, installed: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """C sources and headers that are newer than the extension made of them, where that was made."""
    for module in settings["ext-modules"]:
        *folders, stem = module["name"].split(".")[1:]
        files = installed.joinpath(*folders).glob(f"{stem}.*")
        made = [file.stat().st_mtime_ns for file in files if file.suffix in _EXTENSION]
        sources = [*module["sources"], *module["depends"]]
        yield from (name for name in sources if made and (root / name).stat().st_mtime_ns > max(made))
