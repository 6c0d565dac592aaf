"""What a run has: cores, lanes, arenas, held buffers, accelerators.

Out: memory to compute in and threads to do it, and memory that ran out told from other failures.
Needs no torch but for `accelerator.py`.
"""

__all__ = ["accelerator", "hardware", "host", "lanes", "memory", "out_of_memory"]
