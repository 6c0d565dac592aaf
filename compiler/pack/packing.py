"""Where the output's bytes lie: stored tensors, weight files, and the index."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from ...grammar.records import dataclass
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
    its bytes."""

    files: tuple[PlannedOutput, ...]
    tensors: tuple[OutputTensor, ...]
    slots: Mapping[str, Slot]
    total: int


def pack_outputs(
    outputs: Sequence[Output],
    ties: Mapping[str, str],
    family: Family,
    layout: str,
    shard_size: int,
    metadata: Mapping[str, str],
    format: OutputFormat,
) -> Packing:
    """Packs canonical tensors into stored ones under `layout`, and these into files of at most
    `shard_size` bytes of tensors, with `metadata` in each. A tensor larger than that gets a file of
    its own."""
    dtypes = {o.name: o.dtype for o in outputs}
    stored = []
    for packed in pack(family, layout, {o.name: o.shape for o in outputs}):
        dtype = dtypes[packed.parts[0]]
        nbytes = SIZES[dtype] * math.prod(packed.shape)
        stored.append(FileTensor(packed.name, dtype, packed.shape, nbytes, packed.parts))
    shards: list[list[FileTensor]] = [[]]
    size = 0
    for tensor in stored:
        if shards[-1] and size + tensor.nbytes > shard_size:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    aliases: dict[str, list[str]] = {}
    for alias, primary in ties.items():
        aliases.setdefault(primary, []).append(alias)
    files, tensors, slots = [], [], {}
    for number, shard in enumerate(shards):
        placed = format.place(shard, metadata)
        for tensor, start in zip(placed.tensors, placed.starts, strict=True):
            tied = tuple([a for part in tensor.parts for a in aliases.get(part, ())]) if aliases else ()
            tensors.append(OutputTensor(tensor.name, tensor.dtype, tensor.shape, number, start, tensor.nbytes, tied))
            share = tensor.nbytes // len(tensor.parts)
            for k, part in enumerate(tensor.parts):
                slots[part] = Slot(number, start + k * share, len(tensors) - 1)
        files.append(PlannedOutput(format.file_name(number, len(shards)), placed.size, placed.fixed))
    return Packing(tuple(files), tuple(tensors), slots, sum(t.nbytes for t in stored))


def index_text(packing: Packing, parameters: int) -> str:
    """The index of an output of several files, as the libraries of Hugging Face read it."""
    where = sorted((t.name, packing.files[t.file].name) for t in packing.tensors)
    metadata = {"total_parameters": parameters, "total_size": packing.total}
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(file)}" for name, file in where)
    head = json.dumps({"metadata": metadata}, indent=2).removesuffix("\n}")
    return f'{head},\n  "weight_map": {{\n{lines}\n  }}\n}}\n'
