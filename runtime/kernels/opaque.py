"""Operations that need whole tensors at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from .columns import column_sum
from .values import Attributes

Whole = Callable[[tuple[torch.Tensor, ...], tuple[float, ...], torch.Tensor, Attributes], None]
"""Writes `op(inputs, scalars)` into the third argument; tensors have their shapes and the dtypes of their buffers."""

OPAQUE: Mapping[str, Whole] = MappingProxyType(
    {
        "column_sum": column_sum,
    }
)
"""Every opaque op's kernel, for any device."""
