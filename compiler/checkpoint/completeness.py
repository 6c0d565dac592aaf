"""Checkpoints of which some may be missing: what is said of them at their `model(…)`."""

from __future__ import annotations

from collections.abc import Sequence

from ...grammar.diagnostic import Diagnostic, error, finding
from .agreement import Disagreement
from .model import Model
from .shards import shard_of

_BELIEVED = "the tensors are believed, and config.json is not"


def completeness(model: Model, said: Sequence[Disagreement]) -> list[Diagnostic]:
    """Warnings (W0575, W0576) about a model whose config.json and tensors disagree as `said`, or
    that is one file of several.

    Raises MergecError (E0461) where the config counts more than there is.
    """
    lacking = [d for d in said if d.lacking]
    if lacking:
        fixes = [d.fix for d in lacking if d.fix]
        raise error(
            "E0461",
            f"`{model.label}` is not complete: {lacking[0].text}",
            model.span,
            "a part of it seems to be lost",
            notes=[d.text for d in lacking[1:]],
            help=(
                "fetch it again, or name another copy",
                *(
                    [f"or, if this is all there is of it, correct its config.json: {', '.join(fixes)}"]
                    if len(fixes) == len(lacking)
                    else []
                ),
            ),
            file=f"{model.checkpoint.location}/config.json",
        )
    found = (
        [
            finding(
                "W0575",
                f"config.json of `{model.label}` and its tensors disagree: {said[0].text}",
                model.span,
                _BELIEVED,
                notes=[d.text for d in said[1:]],
            )
        ]
        if said
        else []
    )
    if not model.checkpoint.is_folder:
        shard = shard_of(model.checkpoint.location.replace("\\", "/").rsplit("/", 1)[-1])
        if shard is not None and int(shard.count) > 1:
            found.append(
                finding(
                    "W0576",
                    f"`{model.label}` is one of {int(shard.count)} files of a checkpoint",
                    model.span,
                    "taken for a model of its own",
                    help="name the folder for the whole of it",
                )
            )
    return found
