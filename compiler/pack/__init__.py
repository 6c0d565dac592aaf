"""Where the output's bytes lie.

In: canonical tensors of the output, and a format. Out: stored tensors, weight files, the bytes in
them that are no tensor's, and the index.
"""

__all__ = ["format", "packing", "safetensors", "slots"]
