"""What an output must keep, seen once all of it is known.

In: an elaboration, and where its tensors lie. Out: diagnostics.
"""

__all__ = ["bundles_whole", "expectations", "loadable", "parts"]
