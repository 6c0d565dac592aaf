"""The graph of tensors: nodes that are built once, what must hold of them, and keys of their
values.

In: leaves and operations. Out: one node for each value, however often it is asked for. `passes/`
makes graphs smaller.
"""

__all__ = ["code_digest", "dependence", "graph", "keys", "masks", "verifier"]
