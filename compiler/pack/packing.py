"""Where the output's bytes lie: stored tensors, weight files, their headers, and the index."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence

from ...grammar.records import dataclass
from ..checkpoint.dtypes import SIZES
from ..checkpoint.layouts import pack
from ..family.family import Family
from ..graph.graph import Output
from ..plan.plan import OutputTensor, PlannedOutput
from ..plan.scratch import PAGE
from .slots import Slot

LARGE = 1 << 20
"""Bytes of a weight file that is worth the space of a longer header."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Weight files with headers, stored tensors with their places, and for each canonical tensor the place of its
    bytes."""

    files: tuple[PlannedOutput, ...]
    tensors: tuple[OutputTensor, ...]
    slots: Mapping[str, Slot]
    total: int


@dataclass(frozen=True, slots=True)
class _Stored:
    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    parts: tuple[str, ...]


def pack_outputs(
    outputs: Sequence[Output],
    ties: Mapping[str, str],
    family: Family,
    layout: str,
    shard_size: int,
    metadata: Mapping[str, str],
) -> Packing:
    """Packs canonical tensors into stored ones under `layout`, and these into files of at most `shard_size` bytes of
    data, with `metadata` in their headers.

    A tensor larger than that gets a file of its own. Within a file wide dtypes come first, which keeps every tensor
    aligned.
    """
    dtypes = {o.name: o.dtype for o in outputs}
    stored = []
    for packed in pack(family, layout, {o.name: o.shape for o in outputs}):
        dtype = dtypes[packed.parts[0]]
        nbytes = SIZES[dtype] * math.prod(packed.shape)
        stored.append(_Stored(packed.name, dtype, packed.shape, nbytes, packed.parts))
    shards: list[list[_Stored]] = [[]]
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
        # numbers are aligned to their size; whole pages come first, so that most tensors begin one
        shard.sort(key=lambda t: (-SIZES[t.dtype], t.nbytes % PAGE != 0))
        header, starts = _header(shard, metadata)
        data = 8 + len(header.encode())
        for tensor, start in zip(shard, starts, strict=True):
            tied = tuple([a for part in tensor.parts for a in aliases.get(part, ())]) if aliases else ()
            tensors.append(
                OutputTensor(tensor.name, tensor.dtype, tensor.shape, number, data + start, tensor.nbytes, tied)
            )
            share = tensor.nbytes // len(tensor.parts)
            for k, part in enumerate(tensor.parts):
                slots[part] = Slot(number, data + start + k * share, len(tensors) - 1)
        name = "model.safetensors" if len(shards) == 1 else f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        files.append(PlannedOutput(name, header, data + sum(t.nbytes for t in shard)))
    return Packing(tuple(files), tuple(tensors), slots, sum(t.nbytes for t in stored))


def _header(shard: Sequence[_Stored], metadata: Mapping[str, str]) -> tuple[str, list[int]]:
    """The JSON of a safetensors header, and each tensor's offset.

    It is padded so that the data begins at a multiple of 8, and in a large file with a page, as then blocks can be
    written straight to the disk.
    """
    quoted = json.JSONEncoder().encode
    entries = ['"__metadata__":' + json.dumps(metadata, separators=(",", ":"))]
    starts, offset = [], 0
    for tensor in shard:
        starts.append(offset)
        shape = ",".join(map(str, tensor.shape))
        end = offset + tensor.nbytes
        entries.append(
            f'{quoted(tensor.name)}:{{"dtype":"{tensor.dtype}","shape":[{shape}],"data_offsets":[{offset},{end}]}}'
        )
        offset = end
    text = "{" + ",".join(entries) + "}"
    unit = PAGE if offset >= LARGE else 8
    return text + " " * (-(8 + len(text)) % unit), starts


def header_bytes(header: str) -> bytes:
    """What stands at the beginning of a safetensors file: the header's length in 8 bytes, then the header."""
    raw = header.encode()
    return struct.pack("<Q", len(raw)) + raw


def index_text(packing: Packing, parameters: int) -> str:
    """`model.safetensors.index.json` of a sharded output."""
    where = sorted((t.name, packing.files[t.file].name) for t in packing.tensors)
    metadata = {"total_parameters": parameters, "total_size": packing.total}
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(file)}" for name, file in where)
    head = json.dumps({"metadata": metadata}, indent=2).removesuffix("\n}")
    return f'{head},\n  "weight_map": {{\n{lines}\n  }}\n}}\n'
