"""Whether an output is what its provenance says.

In: an output. Out: a `Verification`. `check.py` puts the parts together; nothing here writes a
file.
"""

__all__ = ["check", "report"]
