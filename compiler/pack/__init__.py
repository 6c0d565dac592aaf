"""Where the output's bytes lie.

In: canonical tensors of the output. Out: stored tensors, weight files, their headers and the index.
"""

__all__ = ["packing", "slots"]
