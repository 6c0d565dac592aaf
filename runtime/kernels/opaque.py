"""Operations that need whole tensors at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .columns import column_sum, mean_rows
from .fourier import spectral_blend
from .installed import installed_whole
from .iterative import interference_descent, interference_solve
from .linear_algebra import matmul, procrustes_blend, svd_flatten, svd_nuclear, svd_shared, svd_truncate
from .orthogonal import isotropic_merge, singular_merge
from .values import Whole

OPAQUE: Mapping[str, Whole] = MappingProxyType(
    {
        "column_sum": column_sum,
        "mean_rows": mean_rows,
        "svd_truncate": svd_truncate,
        "svd_nuclear": svd_nuclear,
        "svd_flatten": svd_flatten,
        "singular_merge": singular_merge,
        "isotropic_merge": isotropic_merge,
        "svd_shared": svd_shared,
        "matmul": matmul,
        "procrustes_blend": procrustes_blend,
        "spectral_blend": spectral_blend,
        "interference_descent": interference_descent,
        "interference_solve": interference_solve,
        "installed_whole": installed_whole,
    }
)
"""Every opaque op's kernel, for any device."""
