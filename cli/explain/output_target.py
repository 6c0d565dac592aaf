"""What a run would have to do for a target, given what is there."""

from __future__ import annotations

from ...compiler.family.folding import fold
from ...compiler.pipeline import Compilation
from ...grammar.render import escape
from ...runtime.session.outlook import look
from ..terminal.amounts import count, size
from ..terminal.columns import facts
from .checkpoint import listed


def explain_target(compilation: Compilation, path: str) -> str:
    """Which tensors would be made, and which are there: of an earlier output, or of a run that was
    stopped."""
    plan, outlook = compilation.plan, look(compilation.plan, path)
    every = count(len(plan.tensors), "tensor")
    if outlook.unchanged:
        return "target\n  nothing to do: it is what the recipe makes\n"
    if not (outlook.reused or outlook.resumed or outlook.why_not):
        what = "what is there is of no use" if outlook.exists else "there is nothing yet"
        return f"target\n  {what}: all {every} are to be made\n"
    made = set(outlook.made)
    names = [o.name for o in compilation.graph.outputs if compilation.packing.slots[o.name].tensor in made]
    folded = escape(listed(fold(names, compilation.elaboration.space), 12)) or "no more than the papers"
    rows = [("to be made", f"{len(made):,} of {every}: {folded}" if made else folded)]
    if outlook.reused:
        rows.append(("taken over", f"{count(outlook.reused, 'tensor')} of the earlier output"))
    if outlook.resumed:
        rows.append(("finished", f"{count(outlook.resumed, 'tensor')} by a run that was stopped"))
    if outlook.why_not:
        rows.append(("of no use", f"what is there: {escape(outlook.why_not)}"))
    rows.append(("moved", f"{size(outlook.reads)} to read, {size(outlook.writes)} to write"))
    return "\n".join(["target", *facts(rows)]) + "\n"
