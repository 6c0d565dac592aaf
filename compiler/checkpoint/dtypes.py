"""The safetensors dtypes, known here by name and size so that the compiler needs no torch."""

from __future__ import annotations

SIZES: dict[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "F64": 8,
    "I64": 8,
    "U64": 8,
}
"""Bytes per element, for every dtype that a header may name."""

BITS = "BITS"
"""The dtype of masks that are held: eight elements per byte, the first in the lowest bit. No header
names it."""


def held_bytes(dtype: str, numel: int) -> int:
    """Bytes that `numel` elements take in a held buffer."""
    return -(-numel // 8) if dtype == BITS else numel * SIZES[dtype]


FLOATS = frozenset({"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"})
"""Dtypes on which arithmetic is defined; all others may only be copied."""

NAMES: dict[str, str] = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int16": "I16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "float32": "F32",
    "float64": "F64",
    "int64": "I64",
}
"""torch's names, as config.json and `output(dtype=…)` write them, to safetensors' names."""

TORCH_NAMES: dict[str, str] = {v: k for k, v in NAMES.items()}
"""The reverse of `NAMES`."""
