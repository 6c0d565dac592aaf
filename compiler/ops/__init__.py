"""The table of operations: arity, kind, shapes, scratch, and what they do to single numbers.

Kernels are in `runtime/portable/` and `runtime/native/`.
"""

__all__ = ["scalars", "shapes", "sorting_network", "table"]
