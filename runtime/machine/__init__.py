"""What a run has: cores, lanes, arenas, held buffers, accelerators.

Out: memory to compute in, threads to compute with, and an error of its own for memory that ran out.
Needs no torch but for `accelerator.py`.
"""

__all__ = ["accelerator", "hardware", "host", "lanes", "memory", "out_of_memory"]
