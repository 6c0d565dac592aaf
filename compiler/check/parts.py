"""What the output of a checkpoint of several parts must keep: a folder for each, whose documents
still fit what is in it."""

from __future__ import annotations

from ...grammar.diagnostic import error
from ..checkpoint.catalog import Part
from ..checkpoint.model import Model
from ..elaborate.elaborate import Elaboration
from ..family.folding import listed


def check_parts(elaboration: Elaboration, origin: Model, *, single: bool) -> tuple[Part, ...]:
    """The parts of the output, whose folders are those of `origin`.

    Raises MergecError (E0485) where the output is `single`, one file, or where a part has tensors
    of other shapes than in `origin`: its documents are copied, and say those.
    """
    parts = tuple(p for p in origin.checkpoint.parts if p not in elaboration.left)
    below = [part for part in parts if part.folder]
    if not below:
        return parts
    if single:
        folders = ", ".join(f"`{part.folder}`" for part in below)
        raise error(
            "E0485",
            f"`{origin.label}` has weights in folders of their own, and the output is one file",
            origin.span,
            f"they are in {folders}",
            help=("give a folder as the output", 'or open one part alone: `model("…", subfolder="…")`'),
        )
    for part in below:
        odd = []
        for output in elaboration.graph.outputs:
            if output.name.startswith(part.prefix):
                found = origin.find(output.name)
                if found is None or found[1].shape != output.shape:
                    odd.append(output.name)
        if odd:
            raise error(
                "E0485",
                f"`{part.folder}` of the output would have tensors of other shapes than that of `{origin.label}`",
                origin.span,
                f"its config.json is copied, and says what these have: {listed(odd, elaboration.space)}",
                help=f'merge it alone, with `model("…", subfolder="{part.folder}")`',
            )
    return parts
