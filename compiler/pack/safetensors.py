"""The safetensors format: the header's length in 8 bytes, the header (JSON), and the tensors
without a gap."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..checkpoint.dtypes import SIZES
from ..plan.plan import FixedBytes
from ..plan.scratch import PAGE
from .format import FileTensor, OutputFormat, Placement

LARGE = 1 << 20
"""Bytes of a weight file that is worth the space of a longer header."""


def _place(tensors: Sequence[FileTensor], metadata: Mapping[str, str]) -> Placement:
    """The header is padded so that the data begins at a multiple of 8, and in a large file with a
    page, as then blocks can be written straight to the disk."""
    # numbers are aligned to their size; whole pages come first, so that most tensors begin one
    ordered = sorted(tensors, key=lambda t: (-SIZES[t.dtype], t.nbytes % PAGE != 0))
    quoted = json.JSONEncoder().encode
    entries = ['"__metadata__":' + json.dumps(metadata, separators=(",", ":"))]
    offsets, end = [], 0
    for tensor in ordered:
        offsets.append(end)
        start, end = end, end + tensor.nbytes
        dtype, shape = SAFETENSORS.dtypes[tensor.dtype], ",".join(map(str, tensor.shape))
        entries.append(f'{quoted(tensor.name)}:{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{start},{end}]}}')
    text = "{" + ",".join(entries) + "}"
    text += " " * (-(8 + len(text)) % (PAGE if end >= LARGE else 8))
    header = len(text).to_bytes(8, "little") + text.encode()
    data = len(header)
    return Placement(tuple(ordered), tuple([data + k for k in offsets]), (FixedBytes(0, header),), data + end)


SAFETENSORS = OutputFormat(
    name="safetensors",
    stem="model",
    suffix=".safetensors",
    indexed=True,
    dtypes={dtype: dtype for dtype in SIZES},
    metadata={"format": "pt"},
    place=_place,
    stems=("model", "diffusion_pytorch_model"),
)
"""Our dtypes have its names. transformers loads no file whose metadata lack `format`."""
