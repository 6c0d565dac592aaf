"""Carries out a plan.

In: a plan, inputs, a writer, a machine. Out: every step done, on one device or several, its blocks
spread over lanes.
"""

__all__ = ["devices", "executor"]
