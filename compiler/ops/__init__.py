"""The table of operations: what each takes and gives, means, and needs.

In: nothing. Out: `OPS`, from which the compiler and both backends take what they know of an
operation, and `SCALARS`, what operations mean on plain numbers. Kernels are in `runtime/portable/`
and `runtime/native/`.
"""

__all__ = ["shapes", "sorting_network", "table"]
