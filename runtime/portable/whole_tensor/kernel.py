"""What a kernel of an operation on whole tensors is."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...reduce.reducer import Attributes

Whole = Callable[[tuple[torch.Tensor, ...], tuple[float, ...], torch.Tensor, Attributes], None]
"""Writes `op(inputs, numbers)` into the third argument; tensors have their shapes and the dtypes of their buffers."""
