"""The portable backend: torch's kernels, for every device and every operation.

In: a pass or a whole-tensor operation of a plan, operands as ranges of files or held buffers. Out:
blocks of numbers, to files or held buffers.
"""

__all__ = ["backend"]
