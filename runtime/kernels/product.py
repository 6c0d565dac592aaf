"""Blocks of a product of two matrices."""

from __future__ import annotations

import torch

from ...compiler.plan import PRODUCT_ROWS, Held, Product


def product_rows(product: Product, left: torch.Tensor, right: torch.Tensor, first: int, out: torch.Tensor) -> None:
    """Elements from `first` on, whole rows, into `out`; `left` and `right` are the held buffers, in its dtype.

    Always as many rows at once, counted from the first of the tensor: libraries add up in another order where the
    shape is another, and the result must not depend on the block.
    """
    left = _part(left, product.left).view(-1, product.inner)
    right = _part(right, product.right).view(product.inner, -1)
    if product.turned:
        left, right = right.T, left.T
    rows, begin = out.view(-1, product.width), first // product.width
    for start in range(0, len(rows), PRODUCT_ROWS):
        stop = min(start + PRODUCT_ROWS, len(rows))
        torch.mm(left[begin + start : begin + stop], right, out=rows[start:stop])


def _part(buffer: torch.Tensor, held: Held) -> torch.Tensor:
    return buffer[held.first : held.first + held.numel]
