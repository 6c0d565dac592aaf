"""`mergec fmt`: a syntax tree back to text, in the one layout there is.

In: a text and its tree. Out: a text with the same tree and the same comments.
"""

__all__ = ["format", "same_tree"]
