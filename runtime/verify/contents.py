"""What is in the output, by its headers: sound, as recorded, as the index says, as config.json
says."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ...compiler.checkpoint.agreement import config_faults
from ...compiler.checkpoint.catalog import CatalogError, Part, StoredTensor, prefix_of
from ...compiler.checkpoint.model import Model, bind
from ...compiler.ops.shapes import elements
from ...compiler.pack.format import OutputFormat
from ...grammar.diagnostic import Diagnostic
from ...grammar.records import dataclass
from ...grammar.source import Source, Span
from ..catalog.documents import read_json
from ..catalog.folders import MAX_INDEX
from ..catalog.local import LocalCatalog
from ..files.faults import show
from ..formats.outputs import Reader, is_weights, reader_of
from ..formats.safetensors import Header
from ..resume.record import Record
from .report import Check, Verdict, check


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor of the output and the path of the file that holds it."""

    path: str
    tensor: StoredTensor


@dataclass(frozen=True, slots=True)
class OutputContents:
    """Every tensor in the weight files, by name, and how many bytes of tensors that is. `sound`:
    all headers are; `format` is that of the files."""

    tensors: Mapping[str, Place]
    nbytes: int
    sound: bool
    format: OutputFormat


def read_contents(path: str, copied: Collection[str] = ()) -> tuple[OutputContents, Check]:
    """Reads the headers of all weight files of the output, whatever the index says of them, but for
    those that were `copied` as they are. The names of tensors in folders below begin with these."""
    files = [path]
    if os.path.isdir(path):
        files = sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(path)
            for name in names
            if is_weights(name)
            and os.path.isfile(os.path.join(folder, name))
            and os.path.relpath(os.path.join(folder, name), path) not in copied
        )
    found: list[Diagnostic] = []
    tensors: dict[str, Place] = {}
    for file in files:
        reader = reader_of(file)
        try:
            header = reader.header(file)
        except CatalogError as error:
            found.append(as_diagnostic(error))
            continue
        found.extend(_read_otherwise(file, header, reader))
        prefix = prefix_of(_folder(file, path)) if file != path else ""
        for inside, tensor in header.tensors.items():
            name = prefix + inside
            if name in tensors:
                other = os.path.basename(tensors[name].path)
                message = f"tensor `{show(name)}` is in `{show(other)}` as well"
                found.append(Diagnostic("E0651", message, file=file))
            tensors[name] = Place(file, tensor)
    if not files:
        found.append(Diagnostic("E0651", "the output has no weight file", file=path))
    nbytes = sum(p.tensor.nbytes for p in tensors.values())
    detail = f"{_count(len(files), 'weight file')}, {_count(len(tensors), 'tensor')}, {nbytes:,} bytes"
    format = reader_of(files[0] if files else path).format
    return OutputContents(tensors, nbytes, not found, format), check("headers", detail, found)


def _folder(file: str, path: str) -> str:
    """The folder of a file of the output, relative to it; empty for the output's own."""
    folder = os.path.relpath(os.path.dirname(file), path)
    return "" if folder == os.curdir else folder


def _read_otherwise(path: str, header: Header, reader: Reader) -> Iterator[Diagnostic]:
    """Where the format's own library finds other tensors in a file than we do."""
    if reader.reference is None:
        return
    library = f"the {reader.format.name} library"
    try:
        theirs = reader.reference(path)
    except Exception as error:  # whatever it is, nobody can load the file
        yield Diagnostic("E0651", f"{library} can't read this file: {show(str(error))}", file=path)
        return
    ours = {name: (reader.format.dtypes[t.dtype], t.shape) for name, t in header.tensors.items()}
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            here, there = (_kind(tensors.get(name)) for tensors in (ours, theirs))
            yield Diagnostic("E0651", f"tensor `{show(name)}` is {here} to mergec, and {there} to {library}", file=path)


def _kind(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return f"{show(tensor[0])} {list(tensor[1])}" if tensor is not None else "nothing"


def check_tensors(path: str, contents: OutputContents, record: Record) -> Check:
    """Every tensor of the record is there with its dtype and shape, and nothing else."""
    found = []
    for name, recorded in record.tensors.items():
        place = contents.tensors.get(name)
        if place is None:
            found.append(Diagnostic("E0651", f"tensor `{show(name)}` is missing", file=path))
            continue
        is_, was = ((t.dtype, list(t.shape)) for t in (place.tensor, recorded))
        if is_ != was:
            message = f"tensor `{show(name)}` is {is_[0]} {is_[1]}, and was written as {show(was[0])} {was[1]}"
            found.append(Diagnostic("E0651", message, file=place.path))
    for name, place in contents.tensors.items():
        if name not in record.tensors:
            message = f"tensor `{show(name)}` is not one of those that were written"
            found.append(Diagnostic("E0651", message, file=place.path))
    parameters = sum(elements(p.tensor.shape) for p in contents.tensors.values())
    said = record.base.get("parameters")
    if said != parameters:
        message = f"the weight files have {parameters:,} parameters, the record says {show(str(said))}"
        found.append(Diagnostic("E0651", message, file=path))
    return check("tensors", f"{_count(len(record.tensors), 'tensor')}, {parameters:,} parameters, as recorded", found)


def check_index(path: str, contents: OutputContents) -> Check | None:
    """The index of each part names every tensor of it with its file, and nothing else; None where
    there is none and none is needed."""
    if not contents.format.indexed:
        return None
    found: list[Diagnostic] = []
    listed = 0
    needed = False
    folders: dict[str, dict[str, Place]] = {}
    for name, place in contents.tensors.items():
        folder = _folder(place.path, path)
        folders.setdefault(folder, {})[name.removeprefix(prefix_of(folder))] = place
    for folder, tensors in folders.items():
        called = _index_of(os.path.join(path, folder), contents.format, tensors)
        if called is None:
            if len({place.path for place in tensors.values()}) > 1:
                needed = True
                message = f"`{contents.format.index_name()}` is missing, and the weights are in several files"
                found.append(Diagnostic("E0655", message, file=os.path.join(path, folder) if folder else path))
            continue
        needed = True
        listed += _check_listed(called, tensors, found)
    return check("index", _count(listed, "tensor"), found) if needed else None


def _index_of(folder: str, format: OutputFormat, tensors: Mapping[str, Place]) -> str | None:
    """The path of the index of weight files that lie in a folder, where there is one, as it would
    be called."""
    names = {os.path.basename(place.path) for place in tensors.values()}
    for stem in format.stems or (format.stem,):
        variants = {None, *(name.split(".")[1].partition("-")[0] for name in names if name.startswith(f"{stem}."))}
        for variant in sorted(variants - {format.suffix.lstrip(".")}, key=str):
            called = format.index_name(Part("", stem, variant))
            if called is not None and os.path.lexists(os.path.join(folder, called)):
                return os.path.join(folder, called)
    return None


def _check_listed(place: str, tensors: Mapping[str, Place], found: list[Diagnostic]) -> int:
    """What is wrong with the index at `place`, of these tensors; how many it lists."""
    try:
        index = read_json(place, limit=MAX_INDEX, code="E0431")
    except CatalogError as error:
        found.append(as_diagnostic(error))
        return 0

    def wrong(message: str) -> None:
        found.append(Diagnostic("E0655", message, file=place))

    listed = index.get("weight_map")
    if type(listed) is not dict or not all(type(file) is str for file in listed.values()):
        wrong("`weight_map` does not map tensor names to file names")
        listed = {}
    for name, file in listed.items():
        at = tensors.get(name)
        if at is None or os.path.basename(at.path) != file:
            where = "in no file" if at is None else f"in `{show(os.path.basename(at.path))}`"
            wrong(f"the index puts tensor `{show(name)}` in `{show(file)}`, but it is {where}")
    for name in tensors if listed else ():
        if name not in listed:
            wrong(f"tensor `{show(name)}` is not in the index")
    metadata = index.get("metadata")
    said = metadata.get("total_size") if type(metadata) is dict else None
    nbytes = sum(p.tensor.nbytes for p in tensors.values())
    if said is not None and said != nbytes:
        wrong(f"the index says `total_size` {show(str(said))}, and the tensors have {nbytes} bytes")
    return len(listed)


def check_config(path: str, contents: OutputContents, record: Record | None) -> Check:
    """The output, opened as a model: its config.json says what its tensors say, but for what the
    template's said otherwise already, by the record."""
    if not contents.sound:
        return Check("config", Verdict.UNKNOWN, "the weight files can't be read as a model")
    catalog, span = LocalCatalog(), Span(Source("<output>", path), 0, len(path))
    try:
        checkpoint = catalog.open(path, revision=None, subfolder=None, near=os.path.join(path, "-"))
        model, _ = bind(catalog, checkpoint, number=0, label="output", source=path, rename=None, span=span)
    except CatalogError as error:
        return check("config", "", [as_diagnostic(error)])
    if checkpoint.config is None:
        return Check("config", Verdict.UNKNOWN, "there is no config.json")
    place = os.path.join(path, "config.json")
    known = base_list(record, "config_faults") if record is not None else []
    said = [text for text in config_faults(model) if text not in known]
    return check("config", _described(model), [Diagnostic("E0653", show(text), file=place) for text in said])


def _described(model: Model) -> str:
    depths = [f"{depth} {stack}" for stack, depth in model.space.depths.items()]
    ties = [f"{alias} = {primary}" for alias, primary in model.aliases.items()]
    family = model.family.name + (" (inferred)" if model.family.inferred else "")
    return show(", ".join([f"family {family}", f"layout {model.layout}", *depths, *(ties or ["no ties"])]))


def as_diagnostic(error: CatalogError) -> Diagnostic:
    """A catalog's complaint about a file that no recipe names."""
    return Diagnostic(error.code, error.message, notes=error.notes, help=error.help, file=error.file)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def base_list(record: Record, name: str) -> list[Any]:
    """A list of the record; empty where it is something else."""
    value = record.base.get(name)
    return value if isinstance(value, list) else []
