"""Merges for tests: models given as plain tensors, the result as plain tensors."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import mergec
import torch
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from safetensors.torch import load_file, save_file

Tensors = Mapping[str, torch.Tensor]


def merge(recipe: str, models: Mapping[str, Tensors], options: Options | None = None) -> dict[str, torch.Tensor]:
    """Writes every model as one file `NAME.safetensors`, runs the recipe (after a `let` for each),
    reads the result."""
    with tempfile.TemporaryDirectory() as folder:
        lets = []
        for label, tensors in models.items():
            save_file(dict(tensors), f"{folder}/{label}.safetensors")
            lets.append(f'let {label} = model("{folder}/{label}.safetensors")\n')
        source = Source("<test>", "".join(lets) + recipe)
        compiled = compile_recipe(source, LocalCatalog(), "test", options or Options(check_graph=True))
        out = Path(folder) / "out"
        mergec.run(compiled.plan, out)
        return load_file(out / "model.safetensors")


def compile_folders(recipe: str, **folders: Path) -> mergec.Compiled:
    """Compiles a recipe for the CPU, after a `let NAME = model(…)` for each folder."""
    lets = "".join(f'let {name} = model("{folder}")\n' for name, folder in folders.items())
    return mergec.compile(lets + recipe, device="cpu", lanes=2)


def merge_folders(recipe: str, out: Path, **folders: Path) -> mergec.Compiled:
    """The same, and runs it into `out`."""
    compiled = compile_folders(recipe, **folders)
    compiled.run(out, force=True)
    return compiled
