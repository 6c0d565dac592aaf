"""Range reduction for `sin` and `cos`: where float32 numbers, however large, lie on a circle. Needs
no torch."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

_BITS = 256
_QUARTERS = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561
"""2/π, in units of 2^-256: quarter turns per radian."""

_SCALE = _BITS + 150
"""Of the integers below: units of 2^-406."""


def _parts() -> NDArray[numpy.float64]:
    rows = numpy.full((3, 256), numpy.nan)
    for exponent in range(255):
        # a number is an integer times 2^(exponent - 150); those of exponent 0 are as if it were 1
        rest = (_QUARTERS << max(exponent, 1)) % (4 << _SCALE)
        for row, bits in enumerate((27, 56)):
            cut = _SCALE - bits
            part = rest >> cut << cut
            rows[row, exponent] = part / (1 << _SCALE)
            rest -= part
        rows[2, exponent] = rest / (1 << _SCALE)
    rows.flags.writeable = False
    return rows


PARTS = _parts()
"""By a float32's exponent bits: quarters of a turn in a unit of its last place, less whole turns,
as a sum of three numbers. The first is a multiple of 2^-27 and the second one of 2^-56, so that
their products with a mantissa of 24 bits are exact; the third has what is left. Those of infinities
and NaNs are NaN."""
