"""Text to syntax tree.

In: a recipe's text. Out: syntax trees whose nodes know their place, diagnostics as data, and both
as text again. Nothing here knows what a checkpoint is.
"""

__all__ = [
    "ast",
    "collector",
    "diagnostic",
    "error_codes",
    "literals",
    "parse",
    "records",
    "render",
    "source",
    "suggest",
]
