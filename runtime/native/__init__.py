"""The native backend: a pass's code on the CPU, in float32, by kernels in C.

In: a pass of a plan. Out: blocks of numbers, the same to the bit on every machine, and as the
portable backend's but for the last bits of functions. `kernels.c` says how; needs no torch.
"""

__all__ = ["backend", "batch", "loading"]
