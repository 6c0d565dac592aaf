"""The symbolic form of values: regions and numbers that vary over the output.

In: values that evaluation makes. Out: what they are at one place, and terms for operations on them.
No tensor is looked at here.
"""

__all__ = ["assembly", "kinds", "lifting", "lookup", "map_keys", "restrict", "terms", "varying"]
