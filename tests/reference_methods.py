"""Merge methods for the interpreter: of arrays in listed order, a base last, and plain numbers, a
value, and whether rounding can't have changed which elements were picked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import reference
import reference_more
from reference import Array


class Wrong(Exception):
    """Numbers that the method refuses."""


def _linear(arrays: Sequence[Array], weight: Sequence[float], normalize: bool = True) -> tuple[Array, bool]:
    if normalize and abs(sum(weight)) < 1e-12:
        raise Wrong
    return reference.linear(arrays, weight, normalize), True


def _slerp(arrays: Sequence[Array], t: float) -> tuple[Array, bool]:
    return reference.slerp(*arrays, t), True


def _nearswap(arrays: Sequence[Array], t: float) -> tuple[Array, bool]:
    return reference_more.nearswap(*arrays, t), True


def _task_arithmetic(arrays: Sequence[Array], **o: Any) -> tuple[Array, bool]:
    *models, base = arrays
    vectors = reference.deltas(models, base)
    found = reference.combined(base, vectors, o["weight"], o.get("normalize", False), o.get("lambda", 1))
    return found.value, True


def _ties(arrays: Sequence[Array], **o: Any) -> tuple[Array, bool]:
    *models, base = arrays
    if any(not 0 <= p <= 1 for p in o["density"]):
        raise Wrong
    vectors = reference.trimmed(models, base, o["density"], None)
    found = reference.elected(base, vectors, o["weight"], o.get("normalize", True), o.get("lambda", 1))
    clear = all(_clear(d, p) for d, p in zip(reference.deltas(models, base), o["density"], strict=True))
    return found.value, bool(np.all(found.sure)) and clear


def _clear(x: Array, density: float) -> bool:
    """Whether the smallest magnitude that is kept is clearly larger than the largest that is
    not."""
    sizes = np.sort(np.abs(x).ravel())[::-1]
    k = max(1, int(density * sizes.size))
    return density <= 0 or k >= sizes.size or bool(sizes[k - 1] - sizes[k] > 1e-5 * sizes[0])


METHODS: Mapping[str, Callable[..., tuple[Array, bool]]] = MappingProxyType(
    {"linear": _linear, "slerp": _slerp, "nearswap": _nearswap, "task_arithmetic": _task_arithmetic, "ties": _ties}
)
