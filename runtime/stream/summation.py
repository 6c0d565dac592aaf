"""The order in which sums are taken: element k goes to vector lane k modulo LANES, then halves of
the lanes are added to halves.

Each lane adds its elements one after the other, in float64. Vectors of any width can do that, so
kernels that are compiled and those of numpy agree to the last bit.
"""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

LANES = 64


def lane_sums(x: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """The sum of every row of `x` (rows, columns), shape (rows,)."""
    rows, columns = x.shape
    whole = columns // LANES * LANES
    lanes = numpy.zeros((rows, LANES))
    with numpy.errstate(all="ignore"):
        # along an axis that is not the last, numpy adds one after the other
        lanes += numpy.add.reduce(x[:, :whole].reshape(rows, -1, LANES), axis=1)
        lanes[:, : columns - whole] += x[:, whole:]
        half = LANES // 2
        while half:
            lanes[:, :half] += lanes[:, half : 2 * half]
            half //= 2
    return lanes[:, 0]
