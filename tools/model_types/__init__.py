"""Writes compiler/family/model_types.toml: what transformers knows of each model type, as entries
of the form of compiler/family/families/*.toml (`python -m tools.model_types.generate`).

Each architecture is built small and asked: what its tensors are called in a file is read from a
file, and what a key of the config does is seen by changing it.
"""
