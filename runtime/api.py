"""The Python interface: everything that the command line does, as functions. Imported as
`mergec`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..compiler.checkpoint.catalog import Catalog
from ..compiler.evaluate.extensions import Primitive
from ..compiler.pipeline import Compilation, Options, compile_recipe
from ..compiler.plan.plan import Plan
from ..compiler.version import __version__
from ..grammar.ast import Module
from ..grammar.diagnostic import Diagnostic
from ..grammar.parse import parse as parse_source
from ..grammar.records import dataclass
from ..grammar.source import Source
from .catalog.extensions import Primitives
from .catalog.local import LocalCatalog
from .catalog.recipes import read_source
from .machine.hardware import choose_device, usual_lanes
from .stream.interfaces import Progress

if TYPE_CHECKING:
    from .session.session import Report


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled recipe, ready to be looked at or run.

    `plan` is plain data (`mergec.compiler.plan.plan`), `diagnostics` are the warnings,
    `compilation` holds all that the compiler knows: models, graph, ties.
    """

    compilation: Compilation

    @property
    def plan(self) -> Plan:
        return self.compilation.plan

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return self.compilation.diagnostics

    @property
    def parameters(self) -> int:
        """Elements of all stored tensors of the output; tied tensors count once."""
        return self.compilation.parameters

    def run(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        fresh: bool = False,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> Report:
        """Merges, and puts the result at `path`. Raises MergecError; see `mergec.run`."""
        return run(self.plan, path, force=force, fresh=fresh, progress=progress, cancel=cancel)


def parse(recipe: str | os.PathLike[str]) -> Module:
    """The syntax tree of a recipe. Raises MergecError with every syntax error."""
    return parse_source(read_source(recipe))


def compile(
    recipe: str | os.PathLike[str] | Source,
    *,
    catalog: Catalog | None = None,
    device: str = "auto",
    lanes: int | None = None,
    memory: int | None = None,
    device_memory: int | None = None,
    defines: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    primitives: Iterable[Primitive] = (),
    strict: bool = False,
    single: bool = False,
    allow_pickle: bool = False,
) -> Compiled:
    """Compiles a recipe (text, or the path of a file) from its inputs' headers; reads no weight.

    `catalog` says where checkpoints come from: local files by default, `mergec.MemoryCatalog` for
    plain dicts. `device` is `auto`, `cpu`, `cuda`, `cuda:1`, …; `lanes` is how many blocks are
    worked on at once (the usable cores and one by default). `memory` and `device_memory` are
    budgets in bytes. `defines` replaces lets, `settings` those of `output(…)`. `primitives` are
    functions that the recipe can call, besides those of installed packages. `strict` makes warnings
    errors; `single` plans one weight file instead of a folder. `allow_pickle` lets local files be
    weights that PyTorch pickled; they are read as data, and no code of theirs is run.

    Raises MergecError with every error found.
    """
    source = read_source(recipe)
    options = Options(
        device=choose_device(device),
        lanes=lanes or usual_lanes(),
        host_memory=memory,
        device_memory=device_memory,
        defines=dict(defines or {}),
        sets=dict(settings or {}),
        primitives=Primitives(primitives),
        strict=strict,
        single=single,
    )
    return Compiled(compile_recipe(source, catalog or LocalCatalog(allow_pickle=allow_pickle), __version__, options))


def run(
    plan: Plan,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    fresh: bool = False,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Report:
    """Carries out a plan and puts the result at `path`: a folder, or a file where the plan is
    `single`.

    Goes on from a run of the same plan that was stopped, and takes over from an earlier output what
    would come out the same, unless `fresh`. `force` replaces an earlier output or a checkpoint, and
    nothing else. Raises MergecError; `Cancelled` where `cancel` was set.
    """
    # a tenth of the time that `mergec --check` takes, which runs nothing
    from .session.session import run_plan

    return run_plan(plan, path, force=force, fresh=fresh, progress=progress, cancel=cancel)
