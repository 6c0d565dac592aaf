"""Formats of weight files.

In: a file, hostile until proven sound. Out: its header: tensors as ranges of the file. No weight is
read.
"""

__all__ = ["containers", "safetensors"]
