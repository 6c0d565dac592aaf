"""Blocks of a product of two matrices."""

from __future__ import annotations

import torch

from ...compiler.plan.plan import PRODUCT_ROWS, Held, Product


def product_rows(
    product: Product,
    left: torch.Tensor,
    right: torch.Tensor,
    first: int,
    out: torch.Tensor,
    shared: torch.Tensor | None,
) -> None:
    """Elements from `first` on, whole rows, into `out`; `left` and `right` are the held buffers, in its dtype.

    The result must not depend on the block. On the CPU terms are added one after the other, in `shared` scratch: what
    order a library adds in depends on the processor, the number of threads and where `out` lies in memory.
    Accelerators, which have no such scratch, take as many rows at once, counted from the first of the tensor, as their
    order may depend on that.
    """
    left = _part(left, product.left).view(-1, product.inner)
    right = _part(right, product.right).view(product.inner, -1)
    if product.turned:
        left, right = right.T, left.T
    rows, begin = out.view(-1, product.width), first // product.width
    for start in range(0, len(rows), PRODUCT_ROWS):
        stop = min(start + PRODUCT_ROWS, len(rows))
        if shared is not None:
            _add_terms(left[begin + start : begin + stop], right, rows[start:stop], shared)
        else:
            torch.mm(left[begin + start : begin + stop], right, out=rows[start:stop])


def _add_terms(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, shared: torch.Tensor) -> None:
    term = shared[: out.numel() * out.element_size()].view(out.dtype).view(out.shape)
    out.zero_()
    for k in range(len(right)):
        out.add_(torch.mul(left[:, k : k + 1], right[k], out=term))


def _part(buffer: torch.Tensor, held: Held) -> torch.Tensor:
    return buffer[held.first : held.first + held.numel]
