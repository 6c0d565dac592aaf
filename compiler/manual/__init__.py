"""What there is to say about each error, kept as data.

Out: the page of `mergec --explain E0203`; docs/errors.md is made of the same.
"""

__all__ = ["errors"]
