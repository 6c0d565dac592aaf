"""Syntax trees to terms.

In: a recipe's statements. Out: settings, models, and for each assignment a place and the term that
it gives. Functions of the language, the standard library and installed extensions are called here.
"""

__all__ = [
    "advise",
    "bindings",
    "builtins",
    "calls",
    "expressions",
    "extensions",
    "parts",
    "scopes",
    "settings",
    "standard_library",
    "statements",
]
