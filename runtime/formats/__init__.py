"""Formats of weight files.

In: a file, hostile until proven sound. Out: its header: tensors as ranges of the file. No weight is
read. `outputs.py` says which reader is for which format that outputs are written in.
"""

__all__ = ["containers", "outputs", "safetensors"]
