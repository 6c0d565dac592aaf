"""Compilations over the checkpoints of tests/errors/models.txt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mergec
import pytest
from error_cases import shared_models
from mergec.compiler.pipeline import Compilation

Compile = Callable[..., Compilation]


@pytest.fixture(scope="session")
def compilation() -> Compile:
    """`compilation(recipe, **models)`: compiled for the CPU with two lanes; models beside the
    shared ones."""

    def make(recipe: str, **models: dict[str, Any]) -> Compilation:
        catalog = mergec.MemoryCatalog({**shared_models(), **models})
        return mergec.compile(recipe, catalog=catalog, device="cpu", lanes=2).compilation

    return make
