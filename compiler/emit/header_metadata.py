"""What the header of a single weight file says beside its tensors: the template's `__metadata__`,
and the recipe.

A folder keeps such things in files of their own, and its headers say only what the format asks for.
Of a file that stands alone the header is all there is: loaders of image and video models read from
it which architecture the weights are of (`modelspec.*`, `config`), trainers what a model was made
from (`ss_*`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...grammar.diagnostic import Diagnostic, finding
from ..checkpoint.documents import is_text
from ..elaborate.elaborate import Elaboration
from ..evaluate.settings import Settings
from ..evaluate.statements import Recipe
from .card import fingerprint

RECORD = "mergec"
"""The key of the recipe's record."""

MOST = 16 << 20
"""The most bytes that are copied; the longest header that loaders accept is 100 MB."""

_DIGESTS = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")
"""Digests of the weights, which are others now."""

_SHOWN = 40


def header_metadata(
    recipe: Recipe,
    text: str,
    settings: Settings,
    elaboration: Elaboration,
    version: str,
    defines: Mapping[str, Any],
    sets: Mapping[str, Any],
    always: Mapping[str, str],
) -> tuple[Mapping[str, str], list[Diagnostic]]:
    """The `__metadata__` of an output that is one file, and a warning (W0581) about what is too
    long to be copied.

    `defines` and `sets` are what the command line replaced, `always` is what every file of the
    format says.
    """
    record = {
        "mergec": version,
        "recipe": text,
        "defines": dict(defines),
        "sets": dict(sets),
        "inputs": [
            {"name": m.label, "source": m.source, "revision": m.checkpoint.revision, "headers_sha256": fingerprint(m)}
            for m in recipe.inputs
        ],
        "template": elaboration.template.label,
        "seed": settings.seed,
    }
    own = _of_the_template(elaboration)
    left = _shorten(own)
    warnings = []
    if left:
        some = ", ".join(f"`{key[:_SHOWN]}`" for key in left[:3]) + ", …" * (len(left) > 3)
        warnings.append(
            finding(
                "W0581",
                f"header metadata of `{elaboration.template.label}` is too long to go along: {some}",
                elaboration.template.span,
                f"more than {MOST >> 20} MiB",
            )
        )
    return {**own, **always, RECORD: json.dumps(record)}, warnings


def _of_the_template(elaboration: Elaboration) -> dict[str, str]:
    template, ties = elaboration.template, elaboration.ties
    names = template.tensors.keys() | template.aliases.keys()
    own = {
        key: value
        for key, value in template.checkpoint.metadata.items()
        # a name maps to that of the tensor that it shares; which tensors do so may have changed
        if is_text(key) and is_text(value) and (key not in names or ties.get(key) == value)
    }
    for key in _DIGESTS:
        own.pop(key, None)
    return own


def _shorten(own: dict[str, str]) -> list[str]:
    """Takes the longest out until the rest is short enough; which these were."""
    sizes = {key: len(key.encode()) + len(value.encode()) for key, value in own.items()}
    total, left = sum(sizes.values()), []
    for key in sorted(sizes, key=lambda key: -sizes[key]):
        if total <= MOST:
            break
        total -= sizes[key]
        left.append(key)
        del own[key]
    return left
