"""What a kernel of an operation on whole tensors is."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...reduce.reducer import Attributes

WholeTensorKernel = Callable[[tuple[torch.Tensor, ...], tuple[float, ...], torch.Tensor, Attributes], None]
"""Inputs, numbers, output, attributes: writes `op(inputs, numbers)` into the output, which is apart
from all inputs.

Inputs and numbers are in the order of the operation's (`takes` in the table, whose `numbers` names
the latter). Tensors have their own shapes, the inputs all the same one but in `matmul`; the output
has that which `shape` of the table gives, or else that of the first. All are contiguous, of the
compute dtype, and on one device. Inputs are left as they are. What the kernel allocates besides is
counted beforehand: `workspace`, `fixed` and `words` of the table.
"""
