"""Plan to files, and the Python interface (`api.py`).

In: plans. Out: finished outputs. Packages here import the compiler's data; the compiler imports
nothing of them.
"""

__all__ = ["api"]
