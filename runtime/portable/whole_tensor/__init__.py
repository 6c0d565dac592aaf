"""Kernels of operations that need whole tensors at once: matrices, columns, spectra.

In: whole tensors, and memory that the operation table promises. Out: a whole tensor.
"""

__all__ = ["columns", "fourier", "iterative", "kernel", "linear_algebra", "orthogonal"]
