"""Tensors of unequal sizes, where `output(resize=…)` says how to bring them to one.

`common`: each tensor is cut to the leading block that all tensors of its statement have there.
`base`: each is brought to the size of the template's tensor, cut where it is longer; where it is
shorter, the template's own elements stand.

A tensor is taken apart into units, the runs of elements behind the last axis that differs, and put
together of units of the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from ..ops.shapes import elements

Shape = tuple[int, ...]
Run = tuple[int, tuple[tuple[int, int], ...]]
"""Units in a row of the result, and where they come from: (source, first unit)."""


def common_shape(shapes: Iterable[Shape]) -> Shape | None:
    """The leading block of several shapes; None where they differ in their number of axes, or there
    are none.

    >>> common_shape([(4, 9, 3), (6, 4, 3)])
    (4, 4, 3)
    """
    found = list(shapes)
    if not found or len({len(s) for s in found}) > 1:
        return None
    return tuple([min(sizes) for sizes in zip(*found, strict=True)])


def units(shape: Shape, target: Shape) -> tuple[int, tuple[Run, ...]]:
    """The elements of a unit, and the runs of units that make `target` of a tensor of `shape`
    (source 0).

    What it lacks comes from a tensor of the target's own shape (source 1).

    >>> units((2, 3), (2, 2))
    (1, ((2, ((0, 0),)), (2, ((0, 3),))))
    >>> units((2, 3), (3, 3))
    (3, ((2, ((0, 0),)), (1, ((1, 2),))))
    """
    last = max(k for k in range(len(shape)) if shape[k] != target[k])
    width = elements(target[last + 1 :])
    length, kept = target[last], min(shape[last], target[last])
    runs: list[Run] = []
    made = 0
    for index in product(*(range(n) for n in target[:last])):
        inside = all(i < n for i, n in zip(index, shape, strict=False))
        if inside and kept:
            at = 0
            for i, n in zip(index, shape, strict=False):
                at = at * n + i
            _extend(runs, kept, 0, at * shape[last])
        lacking = length - kept if inside else length
        if lacking:
            _extend(runs, lacking, 1, made + length - lacking)
        made += length
    return width, tuple(runs)


def _extend(runs: list[Run], count: int, source: int, first: int) -> None:
    """Adds a run, or lengthens the last one that it goes on."""
    if runs:
        before, ((same, start),) = runs[-1]
        if same == source and start + before == first:
            runs[-1] = (before + count, ((source, start),))
            return
    runs.append((count, ((source, first),)))
