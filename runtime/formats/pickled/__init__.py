"""Checkpoints that PyTorch wrote as pickles, read as data: an archive of records, and a pickle that
lists tensors.

archive      file      -> records (byte ranges)      archive.py
machine      data.pkl  -> stand-ins                  interpreter.py, standins.py
state        stand-ins -> tensors by name            state.py
reading      all three -> Header                     header.py

Nothing here imports `pickle`, `zipfile` or torch: no function that a file names is ever looked up.
"""

__all__ = ["header"]
