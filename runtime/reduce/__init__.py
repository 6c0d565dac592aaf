"""Reductions over all blocks of a tensor.

In: what lanes gather of their blocks. Out: one number, the same whatever the blocks and lanes.
Needs no torch.
"""

__all__ = ["counting", "quantile", "reducer", "reducers", "selection", "windows"]
