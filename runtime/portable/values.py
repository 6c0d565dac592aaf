"""What kernels work on."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...grammar.records import dataclass
from ..reduce.reducer import Attributes, Threshold


@dataclass(frozen=True, slots=True)
class ScalarValue:
    """A number that holds for a whole tensor: `value` on the host, `tensor` the same rounded to the
    compute dtype, 0-d, on the device."""

    value: float
    tensor: torch.Tensor


@dataclass(frozen=True, slots=True)
class BlockValue:
    """Elements `[first, first + count)` of a tensor; `shared` is scratch, as many bytes as
    `compiler/ops/` says."""

    first: int
    count: int
    shared: torch.Tensor


Value = torch.Tensor | ScalarValue | Threshold
"""An argument: a block of numbers or booleans (1-d, `count` elements), or a value that holds for
the whole tensor."""

Kernel = Callable[[BlockValue, torch.Tensor, tuple[Value, ...], Attributes], None]
"""Block, output, args, attributes: writes `op(args)` into the output, without allocating.

Args are in the order of the operation's inputs (`takes` in the table). Blocks and the output are
1-d, contiguous, of `count` elements, numbers of the compute dtype and masks booleans. The output
may be one of the args where the table says `in_place`, and is apart from them otherwise; args are
left as they are.
"""


def tensor(value: Value) -> torch.Tensor:
    """A block or number as torch takes it."""
    if isinstance(value, ScalarValue):
        return value.tensor
    assert isinstance(value, torch.Tensor)
    return value


def bits(numbers: torch.Tensor) -> torch.Tensor:
    """Float32 or float64 numbers seen as integers of their width."""
    return numbers.view(torch.int32 if numbers.dtype == torch.float32 else torch.int64)


def magnitude_mask(dtype: torch.dtype) -> int:
    """All bits of a float32 or float64 but the sign."""
    return (1 << (31 if dtype == torch.float32 else 63)) - 1
