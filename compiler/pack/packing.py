"""Where the output's bytes lie: stored tensors, weight files, and the index."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ...grammar.records import dataclass
from ..checkpoint.catalog import OWN, Part
from ..checkpoint.dtypes import SIZES
from ..checkpoint.layouts import pack
from ..family.family import Family
from ..graph.graph import Output
from ..plan.plan import OutputTensor, PlannedOutput
from .format import FileTensor, OutputFormat
from .slots import Slot


@dataclass(frozen=True, slots=True)
class Packing:
    """Weight files, stored tensors with their places, and for each canonical tensor the place of
    its bytes. `parts` are the numbers of the files of each part that has some."""

    files: tuple[PlannedOutput, ...]
    tensors: tuple[OutputTensor, ...]
    slots: Mapping[str, Slot]
    parts: Mapping[Part, range]


def pack_outputs(
    outputs: Sequence[Output],
    ties: Mapping[str, str],
    family: Family,
    layout: str,
    shard_size: int,
    metadata: Mapping[str, str],
    format: OutputFormat,
    parts: Sequence[Part] = (OWN,),
) -> Packing:
    """Packs canonical tensors into stored ones under `layout`, and these into files of at most
    `shard_size` bytes of tensors, with `metadata` in each. A tensor larger than that gets a file of
    its own. Those of a part are in its folder, and there without its name before theirs."""
    dtypes = {o.name: o.dtype for o in outputs}
    stored = []
    for packed in pack(family, layout, {o.name: o.shape for o in outputs}):
        dtype = dtypes[packed.parts[0]]
        nbytes = SIZES[dtype] * math.prod(packed.shape)
        stored.append(FileTensor(packed.name, dtype, packed.shape, nbytes, packed.parts))
    aliases: dict[str, list[str]] = {}
    for alias, primary in ties.items():
        aliases.setdefault(primary, []).append(alias)
    files: list[PlannedOutput] = []
    tensors: list[OutputTensor] = []
    slots: dict[str, Slot] = {}
    numbers: dict[Part, range] = {}
    for part, inside in _by_part(stored, parts):
        shards = _sharded(inside, shard_size)
        first = len(files)
        for number, shard in enumerate(shards, first):
            placed = format.place(shard, metadata)
            for tensor, start in zip(placed.tensors, placed.starts, strict=True):
                tied = tuple([a for own in tensor.parts for a in aliases.get(own, ())]) if aliases else ()
                name = part.prefix + tensor.name
                tensors.append(OutputTensor(name, tensor.dtype, tensor.shape, number, start, tensor.nbytes, tied))
                share = tensor.nbytes // len(tensor.parts)
                for k, own in enumerate(tensor.parts):
                    slots[own] = Slot(number, start + k * share, len(tensors) - 1)
            name = format.file_name(number - first, len(shards), part)
            files.append(PlannedOutput(name, placed.size, placed.fixed))
        numbers[part] = range(first, len(files))
    return Packing(tuple(files), tuple(tensors), slots, numbers)


def part_of(name: str, parts: Sequence[Part]) -> Part:
    """The part that a tensor belongs to: the one whose name its own begins with, the innermost of
    several."""
    inside = [part for part in parts if name.startswith(part.prefix)]
    return max(inside, key=lambda part: len(part.prefix), default=OWN)


def _by_part(stored: Sequence[FileTensor], parts: Sequence[Part]) -> list[tuple[Part, list[FileTensor]]]:
    if parts == (OWN,) or not any(part.folder for part in parts):
        return [(parts[0], list(stored))]
    found: dict[Part, list[FileTensor]] = {}
    for tensor in stored:
        part = part_of(tensor.name, parts)
        inside = replace(tensor, name=tensor.name.removeprefix(part.prefix)) if part.folder else tensor
        found.setdefault(part, []).append(inside)
    return list(found.items())


def _sharded(stored: Sequence[FileTensor], shard_size: int) -> list[list[FileTensor]]:
    shards: list[list[FileTensor]] = [[]]
    size = 0
    for tensor in stored:
        if shards[-1] and size + tensor.nbytes > shard_size:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def index_texts(packing: Packing, format: OutputFormat) -> Iterator[tuple[str, str]]:
    """Names and texts of the indexes: one for each part that is in several files."""
    for part, numbers in packing.parts.items():
        name = format.index_name(part)
        if len(numbers) > 1 and name is not None:
            yield name, _index_text(packing, part, numbers)


def _index_text(packing: Packing, part: Part, numbers: range) -> str:
    """The index of several files, as the libraries of Hugging Face read it."""
    inside = [t for t in packing.tensors if t.file in numbers]
    folder = f"{part.folder}/" if part.folder else ""
    names = [packing.files[k].name.removeprefix(folder) for k in range(len(packing.files))]
    where = sorted((t.name.removeprefix(part.prefix), names[t.file]) for t in inside)
    parameters, nbytes = sum(math.prod(t.shape) for t in inside), sum(t.nbytes for t in inside)
    metadata = {"total_parameters": parameters, "total_size": nbytes}
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(file)}" for name, file in where)
    head = json.dumps({"metadata": metadata}, indent=2).removesuffix("\n}")
    return f'{head},\n  "weight_map": {{\n{lines}\n  }}\n}}\n'
