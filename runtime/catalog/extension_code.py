"""The code that a kernel of an installed package is made of, as a digest. It distinguishes kernels
of the same name and version, as after an edit in a development install.

It covers the package's name and version, the kernel's module, all modules of its package, and what
the package's installer has noted of other files. Nothing is imported for it but what leads to the
package.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

from ...compiler.graph.code_digest import digest_of, own_code
from ...compiler.plan.plan import Code, Plan
from ...grammar.diagnostic import error
from ..files.faults import show

if TYPE_CHECKING:
    from importlib.metadata import Distribution

File = tuple[str, str]
"""A file of a package: its name, which does not depend on where the package lies, and its path."""

_ENDINGS = (".py", ".pyx", ".so", ".pyd", ".dylib", ".dll", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp")
"""Modules, libraries, and what a package may compile at its first import."""


def kernel_code(kernel: str, package: str) -> str:
    """The digest of the code of `kernel`, `module:function`, of a package by name and version;
    empty where its code is not known, as with a function typed into a session.

    What is imported already stays as it is, so the digest does too, until it is imported anew.
    """
    module = kernel.partition(":")[0]
    spec = getattr(sys.modules.get(module), "__spec__", None)
    if not isinstance(spec, ModuleSpec):
        return _digest(module, package)
    # a module that is run as a program has another name than it is found by
    return _of_imported(_Imported(spec), spec.name, package)


def check_code(plan: Plan) -> None:
    """Sees that the code is what the plan was made for. Raises MergecError (E0662)."""
    for then in plan.made_by:
        now = kernel_code(then.kernel, then.package) if then.kernel else own_code()
        if then.digest not in ("", now):
            message = f"{named(then)} has changed since the plan was made"
            raise error("E0662", message, help="compile the recipe again: run the same command once more")


def named(code: Code) -> str:
    """What code is called in messages."""
    if not code.kernel:
        return "mergec's own code"
    return f"the code of `{show(code.kernel)}`" + (f" of {show(code.package)}" if code.package else "")


class _Imported:
    """An import of a module: another one where the module is loaded again."""

    __slots__ = ("_spec",)

    def __init__(self, spec: ModuleSpec) -> None:
        self._spec = spec

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Imported) and self._spec is other._spec

    def __hash__(self) -> int:
        return id(self._spec)


@functools.cache
def _of_imported(_: _Imported, module: str, package: str) -> str:
    return _digest(module, package)


def _digest(module: str, package: str) -> str:
    own = list(_own_files(module))
    if not own:
        return ""
    distribution = _distribution(package)
    more, noted = _noted(distribution, {path for _, path in own}) if distribution is not None else ([], [])
    beside = _beside(distribution, module, own) if distribution is not None else []
    files = sorted({*own, *more, *beside})
    return digest_of(files, package, *noted)


# --- the package of a module ---------------------------------------------------------------------


def _own_files(module: str) -> Iterator[File]:
    """The files of the outermost package that a module is in. Packages that only share a name with
    others, as a namespace, do not count as one: of these, the package in it, or the modules next to
    this one."""
    names = module.split(".")
    above: Sequence[str] | None = None
    for depth in range(1, len(names) + 1):
        name = ".".join(names[:depth])
        spec = _spec(name, above)
        if spec is None:
            # a script, or a module that was put together by hand
            path = getattr(sys.modules.get(name), "__file__", None)
            yield from [(os.path.basename(path), path)] if path and os.path.isfile(path) else []
            return
        folders = _folders(name, spec)
        if folders is not None and spec.origin in (None, "namespace"):
            above = folders
            continue
        if folders is not None:
            for folder in folders:
                yield from _below(name, folder)
        elif above is not None and spec.origin and os.path.isfile(spec.origin):
            yield from _below(names[0], os.path.dirname(spec.origin), deep=False)
        elif spec.origin:
            yield from _file(spec.origin)
        return


def _spec(name: str, above: Sequence[str] | None) -> ModuleSpec | None:
    """How a module is found; `above` is the search path of its package. Imports nothing."""
    if name in sys.modules:
        loaded = getattr(sys.modules[name], "__spec__", None)
        return loaded if isinstance(loaded, ModuleSpec) else None
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        found = find(name, above, None) if find is not None else None
        if isinstance(found, ModuleSpec):
            return found
    return None


def _folders(name: str, spec: ModuleSpec) -> list[str] | None:
    """Where the modules of a package are looked for; None for what is no package."""
    found = getattr(sys.modules.get(name), "__path__", spec.submodule_search_locations)
    return None if found is None else [os.fspath(p) for p in found]


def _below(name: str, folder: str, *, deep: bool = True) -> Iterator[File]:
    """The code in a folder and, if `deep`, in the folders in it. Of a package in an archive, the
    archive."""
    if not os.path.isdir(folder):
        yield from _file(folder)
        return
    todo, seen = [(name, folder)], set()
    while todo:
        name, folder = todo.pop()
        try:
            status = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in seen or any(e.name == "pyvenv.cfg" for e in entries):
            continue
        seen.add((status.st_dev, status.st_ino))
        sources = {e.name for e in entries if e.name.endswith(".py")}
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue
            if entry.is_dir():
                todo.extend([(f"{name}/{entry.name}", entry.path)] if deep else [])
            elif _is_code(entry.name) or (entry.name.endswith(".pyc") and entry.name[:-1] not in sources):
                yield f"{name}/{entry.name}", entry.path


def _is_code(name: str) -> bool:
    return name.endswith(_ENDINGS) or ".so." in name


def _file(path: str) -> Iterator[File]:
    """A file, or the archive that it lies in."""
    while path and not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    if os.path.isfile(path):
        yield os.path.basename(path), path


# --- what its installer says ---------------------------------------------------------------------


def _distribution(package: str) -> Distribution | None:
    name = package.rpartition(" ")[0]
    if not name:
        return None
    from importlib import metadata

    try:
        return metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _noted(distribution: Distribution, known: set[str]) -> tuple[list[File], list[str]]:
    """From the installer's list: code that lies elsewhere than in the package, and of all other
    files the digests that it has of them."""
    import csv

    files: list[File] = []
    noted: list[str] = []
    for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
        name = row[0] if len(row) > 1 else ""
        first = name.partition("/")[0]
        # what pip itself has made, with paths of this machine in it
        if first in ("", "..") or first.endswith((".dist-info", ".pth")) or first.startswith("__editable__"):
            continue
        path = str(distribution.locate_file(name))
        if _is_code(name):
            files += [(name, path)] if path not in known else []
        elif row[1]:
            noted.append(f"{name} {row[1]}")
    return files, sorted(noted)


def _beside(distribution: Distribution, module: str, own: Sequence[File]) -> list[File]:
    """Of a development install, for which there is no such list: its other modules and packages in
    the same folder."""
    top = module.partition(".")[0]
    name, path = own[0]
    folder = path.removesuffix(os.sep + name.replace("/", os.sep))
    found: list[File] = []
    for other in (distribution.read_text("top_level.txt") or "").split():
        spec = _spec(other, None) if other != top and other.isidentifier() else None
        if spec is not None and spec.origin and spec.origin.startswith(folder + os.sep):
            found += _own_files(other)
    return found
