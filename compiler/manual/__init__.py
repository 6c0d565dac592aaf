"""What the documentation says of errors, methods and settings, kept as data.

Out: docs/errors.md and parts of docs/methods.md and docs/language.md; `--explain E0203`.
"""

__all__ = ["errors"]
