"""What further generators know of an architecture, to be merged into its entry."""

from __future__ import annotations

from typing import Any

from .subject import Subject


def extras(subject: Subject) -> dict[str, Any]:
    return {}
