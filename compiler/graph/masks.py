"""Keys of random masks."""

from __future__ import annotations

import hashlib


def mask_key(seed: int, tensor: str, model: str, stream: str) -> int:
    """The 64-bit key of a random mask: BLAKE2b-64 of seed, output tensor, model name and stream."""
    h = hashlib.blake2b(digest_size=8)
    for part in (str(seed), tensor, model, stream):
        raw = part.encode()
        h.update(len(raw).to_bytes(8, "little") + raw)
    return int.from_bytes(h.digest(), "little")
