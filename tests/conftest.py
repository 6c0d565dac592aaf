"""Fixtures for all tests, how hypothesis draws, and a guard against testing an install that is not this source tree."""

from __future__ import annotations

import filecmp
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import checkpoints
import mergec
import profiles
import pytest

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = (".py", ".mrg", ".lark", ".toml")

profiles.load()


def _packaged() -> Iterator[Path]:
    """The files below the root that an install holds, relative to it, as pyproject.toml lists its packages."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    for package in settings["packages"]:
        folder = ROOT.joinpath(*package.split(".")[1:])
        yield from (
            p.relative_to(ROOT) for p in folder.iterdir() if p.suffix in SUFFIXES and p.name != "pyproject.toml"
        )


def pytest_configure() -> None:
    """Stop at once where the installed package is neither this tree itself nor equal to it."""
    assert mergec.__file__ is not None
    installed = Path(mergec.__file__).resolve().parent
    if installed == ROOT:
        return
    here = set(_packaged())
    there = {p.relative_to(installed) for p in installed.rglob("*") if p.suffix in SUFFIXES}
    stale = sorted(map(str, here ^ there))
    stale += sorted(str(p) for p in here & there if not filecmp.cmp(ROOT / p, installed / p, shallow=False))
    if stale:
        pytest.exit(f"the installed mergec is not this source tree ({', '.join(stale[:5])}): run `make install`", 4)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`checkpoint(family, dtype=…, seed=…)`: a tiny checkpoint's folder, made once a session. Don't write into it."""
    root = tmp_path_factory.mktemp("checkpoints")

    def make(family: str, dtype: str = "float32", seed: int = 0) -> Path:
        folder = root / f"{family}-{dtype}-{seed}"
        if not folder.exists():
            checkpoints.make(family, folder, dtype=dtype, seed=seed)
        return folder

    return make


@pytest.fixture(scope="session")
def finetuned(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`finetuned(family, seed, scale=…, dtype=…)`: a copy of `checkpoint(family)` with random deltas, made once."""
    root = tmp_path_factory.mktemp("finetuned")

    def make(family: str, seed: int, scale: float = 0.02, dtype: str = "float32") -> Path:
        folder = root / f"{family}-{dtype}-{seed}-{scale}"
        if not folder.exists():
            checkpoints.finetune(checkpoint(family, dtype=dtype), folder, seed=seed, scale=scale)
        return folder

    return make
