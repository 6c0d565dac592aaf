"""The plan for programs: what the text form says, with exact numbers, and the complete plan."""

from __future__ import annotations

import json
from typing import Any

from ...compiler.pipeline import Compilation
from ...compiler.plan.codec import to_json as plan_json
from ...compiler.terms.terms import Tie
from ...grammar.render import to_json as diagnostics_json
from ..formatter.format import format_expression
from .checkpoint import dtypes, nbytes
from .whole_model import whole_passes


def explain_json(compilation: Compilation) -> str:
    """A JSON object: inputs, output, cost, statements, whole_model, copied, ties, warnings, plan.
    Sizes are bytes.

    `plan` is what `compiler.plan.codec.from_json` reads.
    """
    plan, settings, elaboration = compilation.plan, compilation.settings, compilation.elaboration
    data: dict[str, Any] = {
        "version": plan.version,
        "inputs": [
            {
                "name": m.label,
                "source": m.source,
                "location": m.checkpoint.location,
                "family": m.family.name,
                "inferred": m.family.inferred,
                "layout": m.layout,
                "dtypes": dtypes(m),
                "parameters": m.parameters,
                "bytes": nbytes(m),
                "ties": dict(m.aliases),
                "depths": dict(m.space.depths),
                "ignored": list(m.ignored),
            }
            for m in compilation.recipe.inputs
        ],
        "output": {
            "parameters": compilation.parameters,
            "tensors": len(plan.tensors),
            "bytes": sum(t.nbytes for t in plan.tensors),
            "dtypes": sorted({o.dtype for o in compilation.graph.outputs}),
            "depths": dict(elaboration.space.depths),
            "template": elaboration.template.label,
            "template_named": settings.template_named,
            "layout": settings.layout or elaboration.template.layout,
            "files": [{"name": f.name, "bytes": f.size} for f in plan.outputs],
        },
        "cost": {
            "read": plan.reads,
            "written": plan.writes,
            "peak_host": plan.peak_host,
            "peak_device": plan.peak_device,
            "steps": len(plan.steps),
            "device": plan.device,
            "lanes": plan.lanes,
        },
        "statements": [_statement(compilation, k) for k in range(len(compilation.recipe.assignments))],
        "whole_model": [
            {
                "statement": p.statement,
                "models": list(p.models),
                "tensors": p.tensors,
                "bytes": p.nbytes,
                "finds": list(p.finds),
            }
            for p in whole_passes(compilation)
        ],
        "copied": list(elaboration.copied),
        "ties": dict(elaboration.ties),
        "warnings": [json.loads(line) for line in diagnostics_json(compilation.diagnostics).splitlines()],
    }
    # the plan is on one line, as json takes its time over indentation: for 100,000 tensors that
    # took minutes
    facts = json.dumps(data, indent=2).removesuffix("\n}")
    return facts + ',\n  "plan": ' + plan_json(plan) + "\n}\n"


def _statement(compilation: Compilation, number: int) -> dict[str, Any]:
    assignment = compilation.recipe.assignments[number]
    span = assignment.statement.span
    line, column = span.source.position(span.start)
    return {
        "file": span.source.name,
        "line": line,
        "column": column,
        "place": format_expression(assignment.statement.place),
        "value": format_expression(assignment.statement.value),
        "tie": isinstance(assignment.value, Tie),
        "tensors": list(compilation.elaboration.covered.get(assignment.number, ())),
    }
