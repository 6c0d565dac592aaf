"""Whether an output is what its provenance says. `check.py` puts the parts together; nothing here writes a file."""
