"""Operations that need whole tensors at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .extensions import installed_whole
from .whole_tensor.columns import column_sum, mean_rows
from .whole_tensor.fourier import spectral_blend
from .whole_tensor.iterative import interference_descent, interference_solve
from .whole_tensor.kernel import WholeTensorKernel
from .whole_tensor.linear_algebra import (
    matmul,
    procrustes_blend,
    svd_flatten,
    svd_nuclear,
    svd_shared,
    svd_truncate,
)
from .whole_tensor.orthogonal import isotropic_merge, singular_merge

OPAQUE: Mapping[str, WholeTensorKernel] = MappingProxyType(
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
