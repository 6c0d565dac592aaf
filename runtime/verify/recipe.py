"""The recipe in the provenance, compiled again: whether its inputs are those recorded, and its
tensors the same by key.

The record doesn't say in which folder the recipe lay, so relative paths of inputs are looked for
from the folders that the caller gives. Files that the recipe used are in the record, and are taken
from there.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from ...compiler.checkpoint.catalog import CatalogError, Checkpoint, InputFile
from ...compiler.checkpoint.model import Model
from ...compiler.emit.card import fingerprint, standard_library, state
from ...compiler.emit.content import code_of, with_keys
from ...compiler.evaluate.extensions import Primitive
from ...compiler.evaluate.standard_library import Library
from ...compiler.evaluate.statements import evaluate
from ...compiler.graph.code_digest import own_code
from ...compiler.pack.format import OutputFormat
from ...compiler.pipeline import Compilation, Options, compile_recipe
from ...compiler.plan.plan import Code, Plan
from ...compiler.version import __version__
from ...grammar.diagnostic import Diagnostic, MergecError, Severity
from ...grammar.parse import parse
from ...grammar.records import dataclass
from ...grammar.source import Source
from ..catalog.extension_code import named
from ..catalog.local import LocalCatalog
from ..files.compare import holds
from ..files.faults import show
from ..files.opening import regular
from ..resume.environment import changed_code, recorded_code
from ..resume.record import Record
from .contents import base_list
from .report import Check, Verdict, check


@dataclass(frozen=True, slots=True)
class Recompiled:
    """The recipe of a record, compiled. `touched`: the names of inputs that were written to or
    copied since."""

    compilation: Compilation
    touched: tuple[str, ...]

    @property
    def plan(self) -> Plan:
        return self.compilation.plan


class Recorded:
    """A catalog that finds checkpoints on the disk, and the files that a recipe used in its record.

    Implements `compiler.catalog.Catalog`.
    """

    def __init__(self, disk: LocalCatalog, libraries: Mapping[str, str], recipe: str) -> None:
        self._disk, self._libraries, self._recipe = disk, libraries, recipe

    def open(
        self,
        source: str,
        *,
        revision: str | None,
        subfolder: str | None,
        near: str,
        key: str | None = None,
        variant: str | None = None,
    ) -> Checkpoint:
        return self._disk.open(source, revision=revision, subfolder=subfolder, near=near, key=key, variant=variant)

    def adapter(self, source: str, *, revision: str | None, subfolder: str | None, near: str) -> Checkpoint:
        return self._disk.adapter(source, revision=revision, subfolder=subfolder, near=near)

    def same_bytes(
        self,
        checkpoint: Checkpoint,
        first: str,
        second: str,
        *,
        other: Checkpoint | None = None,
        turned: bool = False,
    ) -> bool | None:
        return self._disk.same_bytes(checkpoint, first, second, other=other, turned=turned)

    def document(self, checkpoint: Checkpoint, name: str) -> str | None:
        return self._disk.document(checkpoint, name)

    def beginning(self, checkpoint: Checkpoint, name: str, nbytes: int) -> str | None:
        return self._disk.beginning(checkpoint, name, nbytes)

    def library(self, path: str, *, near: str) -> tuple[str, str]:
        """Name and text of a file that the recipe used; names are relative to the recipe. Raises
        CatalogError."""
        beside = "" if near == self._recipe else posixpath.dirname(near)
        name = posixpath.normpath(posixpath.join(beside, path))
        if name not in self._libraries:
            raise CatalogError("E0402", f"no file `{show(path)}` in the record")
        return name, self._libraries[name]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Models that could be opened from a folder; `ok`: nothing in the recipe failed. `error`: it is
    no recipe.

    `pickles`: some of the models are kept as pickles, which may not be read.
    """

    folder: str
    models: tuple[Model, ...]
    ok: bool
    error: MergecError | None = None
    pickles: bool = False


def recompile(
    record: Record,
    folders: Sequence[str],
    disk: LocalCatalog,
    primitives: Mapping[str, Primitive],
    lanes: int,
    device: str,
    format: OutputFormat,
    place: str,
) -> tuple[Recompiled | None, list[Check]]:
    """Compiles the recipe of a record from the first of `folders` in which all its inputs are.

    None where it can't be compiled; the checks `inputs` and `recipe` say why. `disk` opens the
    inputs, `place` is the record's path.
    """
    attempts = [_attempt(record, folder, disk, primitives) for folder in dict.fromkeys(folders)]
    best = max(attempts, key=lambda a: (a.ok, len(a.models)))
    if best.error is not None:
        return None, [_failed(record, best.error, place)]
    inputs, touched, sound = _inputs(record, best.models, any(a.pickles for a in attempts), place)
    if not sound:
        return None, [inputs, Check("recipe", Verdict.UNKNOWN, "compiles only from the inputs that are recorded")]
    catalog, source = _sources(record, best.folder, disk)
    options = Options(
        device=device,
        lanes=lanes,
        defines=_object(record, "defines"),
        sets=_object(record, "sets"),
        strict=record.base.get("strict") is True,
        primitives=primitives,
        format=format,
    )
    try:
        compilation = compile_recipe(source, catalog, __version__, options)
    except MergecError as error:
        return None, [inputs, _failed(record, error, place)]
    made = Recompiled(compilation, touched)
    return made, [inputs, _keys(record, made, place)]


def _object(record: Record, name: str) -> dict[str, Any]:
    value = record.base.get(name)
    return value if isinstance(value, dict) else {}


def _sources(record: Record, folder: str, disk: LocalCatalog) -> tuple[Recorded, Source]:
    """The catalog and the recipe, as if it lay in `folder`."""
    libraries = {}
    for library in base_list(record, "libraries"):
        if isinstance(library, dict):
            libraries[str(library.get("name"))] = str(library.get("text"))
    name = os.path.join(folder, "the recipe of the record")
    return Recorded(disk, libraries, name), Source(name, str(record.base.get("recipe")))


def _attempt(record: Record, folder: str, disk: LocalCatalog, primitives: Mapping[str, Primitive]) -> _Attempt:
    catalog, source = _sources(record, folder, disk)
    try:
        recipe = evaluate(parse(source), catalog, Library(primitives), _object(record, "defines"))
    except MergecError as error:
        return _Attempt(folder, (), False, error)
    sound = all(d.severity is not Severity.ERROR for d in recipe.diagnostics)
    pickles = any(d.code == "E0405" for d in recipe.diagnostics)
    return _Attempt(folder, tuple(recipe.inputs), sound, pickles=pickles)


# --- inputs --------------------------------------------------------------------------------------


def _inputs(record: Record, models: Sequence[Model], pickles: bool, place: str) -> tuple[Check, tuple[str, ...], bool]:
    """The check of the inputs, the names of those written to since, and whether all of them are
    available and unchanged."""
    said = [entry for entry in base_list(record, "inputs") if isinstance(entry, dict)]
    found, missing, touched = [], [], []
    left = list(models)
    for entry in said:
        name = str(entry.get("name"))
        model = next((m for m in left if (m.label, m.source) == (entry.get("name"), entry.get("source"))), None)
        if model is None:
            missing.append(name)
            continue
        left.remove(model)
        if fingerprint(model) != entry.get("headers_sha256"):
            message = f"input `{show(name)}` is not the one that the output was made from: its headers differ"
            found.append(Diagnostic("E0656", message, file=model.checkpoint.location))
        elif not _as_they_were(entry, model.checkpoint.files):
            touched.append(name)
    detail = (
        f"{len(said) - len(missing):,} of {len(said):,} are those recorded, by header, size, time of writing and inode"
    )
    unknown = _unknown(missing, touched, pickles)
    if not said:
        found.append(Diagnostic("E0650", "the record names no inputs", file=place))
    return check("inputs", detail, found, unknown), tuple(touched), not (missing or found)


def _as_they_were(entry: Mapping[str, Any], files: Sequence[InputFile]) -> bool:
    """Whether the files of an input are those of its entry in the record."""
    said = entry.get("files")
    told = said if isinstance(said, list) else []
    return len(told) == len(files) and all(
        isinstance(then, dict) and state(now).items() <= then.items() for then, now in zip(told, files, strict=True)
    )


def _unknown(missing: Sequence[str], touched: Sequence[str], pickles: bool) -> str | None:
    said = []
    if missing:
        hint = " (weights in pickle format are read with `--allow-pickle`)" if pickles else ""
        said.append(f"not at hand: {', '.join(f'`{show(n)}`' for n in missing)}{hint}")
    if touched:
        names = ", ".join(f"`{show(n)}`" for n in touched)
        said.append(f"written to or copied since, so only a rerun can tell: {names}")
    return "; ".join(said) or None


# --- keys ----------------------------------------------------------------------------------------


def _other_version(record: Record) -> str | None:
    """What of mergec itself is not as it was when the output was made."""
    if record.base.get("mergec") != __version__:
        return f"it was made by mergec {show(str(record.base.get('mergec')))}, and this is {__version__}"
    if record.base.get("stdlib_sha256") != standard_library():
        return "it was made with another standard library"
    if record.made_with.get("code") != own_code():
        return "it was made when mergec's own code was another"
    return None


def _failed(record: Record, error: MergecError, place: str) -> Check:
    other = _other_version(record)
    said = tuple(f"{d.code}: {d.message}" for d in error.diagnostics)
    if other is not None:
        return Check("recipe", Verdict.UNKNOWN, f"does not compile ({said[0]}); {other}")
    message = "the recipe in the record does not compile"
    return check("recipe", "", [Diagnostic("E0657", message, notes=said, file=place)])


def _keys(record: Record, made: Recompiled, place: str) -> Check:
    """Whether the recipe gives the recorded keys, if its inputs were where they were and its code
    what it was; and whether it is."""
    compilation = made.compilation
    settings = compilation.settings
    now = code_of(compilation.graph, __version__, compilation.recipe.primitives)
    then = recorded_code(record.made_with, now)
    tensors = with_keys(
        compilation.graph,
        compilation.packing,
        compilation.recipe.inputs,
        settings.compute,
        then,
        finite=settings.on_nonfinite == "error",
        files=_recorded_files(record, compilation.recipe.inputs),
    )
    keys = {t.name: t.key for t in tensors}
    differ = [n for n in {**keys, **record.tensors} if n not in record.tensors or keys.get(n) != record.tensors[n].key]
    same = len(keys) - len(differ)
    other = _other_version(record)
    if not differ:
        detail = f"compiles to the same {same:,} keys"
        changed = [_changed(code, record, place) for code in changed_code(record.made_with, now) if code.kernel]
        return check("recipe", detail, changed, f"{detail}; but {other}" if other is not None else None)
    if any(f"kernel {code.kernel}" in record.made_with and not code.digest for code in then):
        other = "it was made by a function whose code nothing tells"
    if other is not None:
        return Check("recipe", Verdict.UNKNOWN, f"compiles to {len(differ):,} other keys; {other}")
    found = []
    for name in differ:
        message = f"the recipe in the record does not make tensor `{show(name)}`: its key is another"
        found.append(Diagnostic("E0657", message, file=place))
    return check("recipe", f"{len(differ):,} of {len(record.tensors):,} keys differ", found)


def _changed(code: Code, record: Record, place: str) -> Diagnostic:
    """A kernel that is not what it was."""
    names = [e.get("package") for e in base_list(record, "primitives") if isinstance(e, dict) and _is(e, code)]
    notes = tuple(
        f"it was of {show(str(name))} then" for name in dict.fromkeys(names) if name not in (None, code.package)
    )
    message = f"{named(code)} has changed since the output was made with it"
    return Diagnostic("E0663", message, notes=notes, file=place)


def _is(entry: Mapping[str, Any], code: Code) -> bool:
    return bool(entry.get("kernel") == code.kernel)


def _recorded_files(record: Record, models: Sequence[Model]) -> dict[tuple[int, int], str]:
    """The keys of the input files as they were then, by model number and place in the model."""
    keys: dict[tuple[int, int], str] = {}
    said = [entry for entry in base_list(record, "inputs") if isinstance(entry, dict)]
    for model in models:
        entry = next((e for e in said if (e.get("name"), e.get("source")) == (model.label, model.source)), {})
        files = entry.get("files")
        for k in range(len(model.checkpoint.files)):
            file = files[k] if isinstance(files, list) and k < len(files) else None
            key = file.get("key") if isinstance(file, dict) else None
            keys.setdefault((model.number, k), str(key))
    return keys


# --- companion files -----------------------------------------------------------------------------


def check_companions(path: str, made: Recompiled) -> Check:
    """config.json, the index and files copied from inputs (a tokenizer) are as the recipe writes
    them."""
    found: list[Diagnostic] = []
    looked = 0
    # what the compiler writes from tensors and configs alone; other documents are compared with
    # their sources
    format, parts = made.compilation.options.format, made.compilation.packing.parts
    as_written = {format.index_name(part) for part in parts}
    for document in made.plan.documents:
        if posixpath.basename(document.name) == "config.json" or document.name in as_written:
            looked += 1
            _compare(path, document.name, document.text.encode(), found)
    for tagalong in made.plan.tagalongs:
        try:
            with regular(tagalong.path) as (descriptor, _), open(descriptor, "rb", closefd=False) as file:
                wanted = file.read()
        except OSError:
            continue  # gone from the input; what it was is not known
        looked += 1
        _compare(path, tagalong.name, wanted, found)
    return check("documents", f"{looked:,} files beside the weights are as the recipe writes them", found)


def _compare(path: str, name: str, wanted: bytes, found: list[Diagnostic]) -> None:
    place = os.path.join(path, name)
    try:
        same = holds(place, wanted)
        message = f"`{show(name)}` is not as it was written"
    except OSError:
        same, message = False, f"`{show(name)}` is missing"
    if not same:
        found.append(Diagnostic("E0659", message, file=place))
