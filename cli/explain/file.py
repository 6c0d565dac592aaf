"""What depends on a weight file of an input: which tensors of the output, by which statements."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence

from ...compiler.checkpoint.model import Model
from ...compiler.family.folding import fold
from ...compiler.graph.dependence import StoredName, dependents
from ...compiler.pipeline import Compilation
from ...grammar.render import escape
from ..formatter.format import format_expression
from ..terminal.amounts import count
from ..terminal.columns import WIDTH, clip, columns, facts
from .checkpoint import listed

Tensors = Mapping[StoredName, Model]
"""Stored tensors and the models that they are of."""


def tensors_of(compilation: Compilation, path: str) -> Tensors:
    """The tensors in the weight file at `path`; none where that is no file of an input."""
    wanted = {path, os.path.abspath(os.path.expanduser(path))}
    return {
        (model.number, stored.name): model
        for model in compilation.recipe.inputs
        for stored in model.checkpoint.tensors.values()
        if model.checkpoint.files[stored.file].path in wanted
    }


def explain_file(compilation: Compilation, path: str, tensors: Tensors) -> str:
    """What a run with another file in the place of this one would make anew, at most."""
    packing, space = compilation.packing, compilation.elaboration.space
    read, reached = dependents(compilation.graph, tensors)
    outputs = [o for o in compilation.graph.outputs if o.name in reached]
    slots = [packing.slots[o.name] for o in outputs]
    every = count(len(compilation.graph.outputs), "tensor")
    rows = [
        ("input", escape(listed(dict.fromkeys(model.label for model in tensors.values())))),
        ("read", f"{len(read):,} of its {count(len(tensors), 'tensor')}"),
        ("needed by", f"{len(outputs):,} of {every} of the output" if outputs else "nothing of the output"),
    ]
    if outputs:
        rows.append(("", escape(listed(fold([o.name for o in outputs], space), 12))))
        rows.append(("written to", listed(packing.files[k].name for k in sorted({slot.file for slot in slots}))))
    parts = [[escape(path), *facts(rows)]]
    if outputs:
        parts.append(["statements", *_statements(compilation, [o.statement for o in outputs])])
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _statements(compilation: Compilation, numbers: Sequence[int | None]) -> list[str]:
    """The statements of those numbers and how many tensors of each are meant; None is what no
    statement covers."""
    rows = [("line", "place", "tensors", "value")]
    found = Counter(numbers)
    for assignment in compilation.recipe.assignments:
        if assignment.number in found:
            span = assignment.statement.span
            place, value = (format_expression(e) for e in (assignment.statement.place, assignment.statement.value))
            line = str(span.source.position(span.start)[0])
            rows.append((line, clip(place, 36), f"{found[assignment.number]:,}", value))
    if None in found:
        copied = f"copied from `{compilation.elaboration.template.label}`"
        rows.append(("", "(the rest)", f"{found[None]:,}", copied))
    taken = 2 + sum(2 + max(len(row[k]) for row in rows) for k in range(3))
    return columns([(*row[:3], clip(row[3], WIDTH - taken)) for row in rows], right=(0, 2))
