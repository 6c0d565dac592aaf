"""Shapes of what operations on whole tensors give, and how many numbers they need besides.

The needs are upper bounds in numbers of the compute dtype; kernels that work in float64 count
twice. What linear algebra libraries keep for themselves, a few MiB per process, is not in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Shape = tuple[int, ...]
Shapes = Sequence[Shape]


def elements(shape: Shape | None) -> int:
    """The number of elements; a number, which has no shape, is one."""
    return math.prod(shape or ())


def shape_text(shape: Shape) -> str:
    """A shape as people read it."""
    return "[" + ", ".join(str(n) for n in shape) + "]"


def product(shapes: Shapes) -> Shape:
    """Of two matrices' product."""
    return (shapes[0][0], shapes[1][1])


def shared_parts(shapes: Shapes) -> list[tuple[int, Shape]]:
    """What `svd_shared` packs into one buffer: the basis, then each tensor's coordinates; first
    element and shape."""
    rows, columns = shapes[0]
    rank = min(rows, columns * len(shapes))
    parts: list[tuple[int, Shape]] = [(0, (rows, rank))]
    first = rows * rank
    for _ in shapes:
        parts.append((first, (rank, columns)))
        first += rank * columns
    return parts


def shared_basis(shapes: Shapes) -> Shape:
    """Of the packed buffer: one axis."""
    first, (rows, columns) = shared_parts(shapes)[-1]
    return (first + rows * columns,)


def neurons(shape: Shape) -> Shape:
    """The matrix whose rows `procrustes_blend` rotates: rows of the last axis; of convolutions the
    kernels.

    Where a convolution's kernel is a single element, its rows are the output channels.
    """
    if len(shape) == 4:
        columns = math.prod(shape[2:]) if shape[-1] != 1 else math.prod(shape[1:])
    else:
        columns = shape[-1] if shape else 1
    return (math.prod(shape) // columns if columns else 0, columns)


# --- needs ---------------------------------------------------------------------------------------


def _svd(rows: int, columns: int) -> int:
    """Of a reduced decomposition: two copies, both factors, and the work space of LAPACK's divide
    and conquer."""
    rank = min(rows, columns)
    return 2 * rows * columns + rank * (rows + columns) + 5 * rank * rank + 128 * (rows + columns) + 1024


def decomposition(shapes: Shapes) -> int:
    """One matrix taken apart and put together again."""
    rows, columns = shapes[0]
    return _svd(rows, columns) + min(rows, columns) * rows


def joined_decompositions(shapes: Shapes) -> int:
    """Several taken apart one after the other, their leading vectors kept side by side and made
    orthogonal."""
    rows, columns = shapes[0]
    return 2 * rows * columns + 3 * min(rows, columns) * (rows + columns) + _svd(rows, columns)


def shared_decomposition(shapes: Shapes) -> int:
    """All side by side taken apart at once, in float64."""
    rows, columns = shapes[0][0], shapes[0][1] * len(shapes)
    return 2 * (rows * columns + _svd(rows, columns) + min(rows, columns) * columns)


def procrustes(shapes: Shapes) -> int:
    """Both tensors centred, the rotation, and for its fractional powers complex eigenvectors in
    double precision."""
    rows, columns = neurons(shapes[0])
    return 4 * rows * columns + _svd(columns, columns) + 32 * columns * columns


def spectra(shapes: Shapes) -> int:
    """Two half spectra, what is made of them, and the filter."""
    shape = shapes[0] or (1,)
    half = math.prod(shape[:-1]) * (shape[-1] // 2 + 1)
    return 14 * half + 2 * math.prod(shape)


def descent(shapes: Shapes) -> int:
    """Gradient, two moments, a difference and a product; and Gram matrices on the shorter side."""
    rows, columns = shapes[0]
    gram = rows * rows if rows <= columns else len(shapes) * columns * columns
    return 6 * rows * columns + gram


def normal_equations(shapes: Shapes) -> int:
    """Two sums and one term in float64, and the eigenvectors of a square matrix."""
    rows, columns = shapes[0]
    return 2 * (4 * rows * columns + 8 * columns * columns + 128 * columns + 1024)
