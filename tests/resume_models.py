"""Two tiny models and a base, and the recipes that the tests of this folder merge them with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mergec
import torch
from mergec.compiler.pipeline import Options, compile_recipe
from mergec.compiler.plan.plan import Plan
from mergec.grammar.source import Source
from mergec.runtime.catalog.local import LocalCatalog
from safetensors.torch import save_file

LAYERS = 6
SHAPES = {
    "embed.weight": (50, 24),
    **{f"layers.{k}.{part}.weight": (24, 24) for k in range(LAYERS) for part in ("q", "k")},
    **{f"layers.{k}.norm.weight": (25,) for k in range(LAYERS)},
    "head.weight": (50, 24),
}
RECIPE = """output(shard_size="18kB")
* = ties(a, b, base=base, density=0.5)
layers[1] = slerp(a, b, t=0.3)
layers[2].q = truncate_rank(a - base) + base
layers[3] = 0.5*a + 0.5*b
layers[4].q = dare_linear(a, b, base=base, density=0.6)
embed = base
"""
CHANGED = RECIPE.replace("0.5*a + 0.5*b", "0.4*a + 0.6*b")


def write_models(folder: Path) -> Path:
    folder.mkdir()
    for k, label in enumerate(("base", "a", "b")):
        random = torch.Generator().manual_seed(k)
        tensors = {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}
        save_file(tensors, folder / f"{label}.safetensors")
    return folder


def plan_of(folder: Path, recipe: str = RECIPE, version: str = "0", **options: Any) -> Plan:
    lets = "".join(f'let {label} = model("{folder}/{label}.safetensors")\n' for label in ("base", "a", "b"))
    single = bool(options.pop("single", 0))
    return compile_recipe(
        Source("<recipe>", lets + recipe), LocalCatalog(), version, Options(single=single, **options)
    ).plan


def merged(plan: Plan, out: Path, **options: bool) -> dict[str, bytes]:
    mergec.run(plan, out, **options)
    return weights(out)


def weights(out: Path) -> dict[str, bytes]:
    """The files of an output but for its provenance, which tells when they were written."""
    return {p.name: p.read_bytes() for p in sorted(out.iterdir()) if p.name != "mergec.json"}


class Told:
    """A progress that remembers what it is told, and can have something happen after some
    tensors."""

    def __init__(self, after: int = 10**9, act: Callable[[], None] | None = None) -> None:
        self.notices: list[str] = []
        self.reads = self.writes = self.begun = 0
        self._after, self._act = after, act

    def begins(self, plan: Any, notices: Any) -> None:
        self.notices, self.reads, self.writes = list(notices), plan.reads, plan.writes

    def tensor(self, index: int) -> None:  # noqa: ARG002
        self.begun += 1
        if self.begun > self._after and self._act is not None:
            self._act()

    def moved(self, read: int, written: int) -> None: ...

    def live(self, host: int, device: int) -> None: ...
