"""Throw-away packages for tests: what pip would leave behind, in a folder on the path."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str, points: str) -> None:
    """Makes the modules in `folder` a package with these entry points (`name = "module:object"`, a
    line each)."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
    (info / "entry_points.txt").write_text(f"[mergec.primitives]\n{points.replace(chr(34), '')}", "utf-8")
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
