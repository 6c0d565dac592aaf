"""Graph to plan.

In: a graph whose outputs have their places in files. Out: steps: passes over blocks with straight-
line code, held buffers, operations on whole tensors, copies; in an order, and with their memory to
the byte.
"""

__all__ = ["schedule"]
