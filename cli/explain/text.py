"""The plan for people: inputs, output, cost, statements, warnings."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence

from ...compiler.family.folding import fold
from ...compiler.pipeline import Compilation
from ...compiler.plan.plan import Copy, Load, Pass
from ...compiler.terms.terms import Tie
from ...grammar.render import escape, render
from ..formatter.format import format_expression
from ..terminal.amounts import count, memory, size
from ..terminal.columns import WIDTH, clip, clip_front, columns, facts
from .checkpoint import depths_text, dtypes, family_text, listed, nbytes, ties_text
from .whole_model import WholePass, whole_passes


def explain_text(compilation: Compilation) -> str:
    """What is merged, what comes out, what it costs and which statement gives what. No line is over
    100 wide."""
    parts = [
        ["inputs", *_inputs(compilation)],
        ["output", *facts(_output(compilation))],
        ["cost", *facts(_cost(compilation))],
        ["statements", *_statements(compilation)],
    ]
    further = whole_passes(compilation)
    if further:
        parts.append(["whole model, read before the pass that writes", *_whole_model(compilation, further)])
    if compilation.diagnostics:
        parts.append(["warnings", "", render(compilation.diagnostics).rstrip("\n")])
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _inputs(compilation: Compilation) -> list[str]:
    rows = [("name", "family", "layout", "dtype", "parameters", "size", "tied", "from")]
    for model in compilation.recipe.inputs:
        rows.append(
            (
                clip(model.label, 16),
                clip(family_text(model), 20),
                model.layout,
                "+".join(dtypes(model)),
                f"{model.parameters:,}",
                size(nbytes(model)),
                clip(ties_text(model.family, model.aliases), 24),
                model.source,
            )
        )
    taken = 2 + sum(2 + max(len(row[k]) for row in rows) for k in range(7))
    # a path that does not fit next to the rest goes on a line of its own
    if WIDTH - taken >= min(20, max(len(row[7]) for row in rows)):
        return columns([(*row[:7], clip_front(row[7], WIDTH - taken)) for row in rows], right=(4, 5))
    lines = columns([row[:7] for row in rows], right=(4, 5))
    return [lines[0]] + [
        text
        for line, row in zip(lines[1:], rows[1:], strict=True)
        for text in (line, "    " + clip_front(row[7], WIDTH - 4))
    ]


def _output(compilation: Compilation) -> list[tuple[str, str]]:
    packing, settings, elaboration = compilation.packing, compilation.settings, compilation.elaboration
    template = escape(elaboration.template.label)
    found = Counter(o.dtype for o in compilation.graph.outputs)
    dtype = "+".join(name for name, _ in found.most_common()) or "none"
    whole = sum(t.nbytes for t in packing.tensors)
    files = count(len(packing.files), "file") + (
        f" of at most {size(settings.shard_size)}" if len(packing.files) > 1 else f", {packing.files[0].name}"
    )
    rows = [
        ("parameters", f"{compilation.parameters:,} in {count(len(packing.tensors), 'tensor')}, {size(whole)}"),
        ("dtype", dtype + (f", as in `{template}`" if settings.dtype is None else "")),
        ("ties", ties_text(elaboration.template.family, elaboration.ties)),
        ("layers", depths_text(elaboration.space.depths)),
        ("template", f"`{template}`" + ("" if settings.template_named else ", the first model")),
        ("files", files),
    ]
    if settings.layout is not None and settings.layout != elaboration.template.layout:
        rows.append(("layout", settings.layout))
    if elaboration.vocabulary is not None:
        rows.append(("vocabulary", f"{elaboration.vocabulary.size:,} tokens"))
    return rows


def _cost(compilation: Compilation) -> list[tuple[str, str]]:
    schedule, device = compilation.schedule, compilation.options.device
    kinds = schedule.kinds()
    work = [f"{kinds[Pass]:,} pass{'' if kinds[Pass] == 1 else 'es'}"]
    if kinds[Copy]:
        work.append(f"{kinds[Copy]:,} {'copy' if kinds[Copy] == 1 else 'copies'} of bytes")
    if kinds[Load]:
        work.append(count(kinds[Load], "load"))
    rows = [
        ("read", f"{size(schedule.reads)} from {count(len(schedule.files()), 'file')}"),
        ("written", size(schedule.writes)),
        ("memory", f"{memory(schedule.host)} at most on the host"),
        ("work", ", ".join(work) + f", on {device} with {count(schedule.lanes, 'lane')}"),
    ]
    if schedule.device:
        rows.insert(3, ("device", f"{memory(schedule.device)} at most on {device}"))
    return rows


def _statements(compilation: Compilation) -> list[str]:
    elaboration = compilation.elaboration
    rows = [("line", "place", "tensors", "value")]
    for assignment in compilation.recipe.assignments:
        span = assignment.statement.span
        line, _ = span.source.position(span.start)
        covered = len(elaboration.covered.get(assignment.number, ()))
        tied = isinstance(assignment.value, Tie)
        place, value = format_expression(assignment.statement.place), format_expression(assignment.statement.value)
        rows.append((str(line), clip(place, 36), "tied" if tied else f"{covered:,}", value))
    copied = ""
    if elaboration.copied:
        copied = f"copied from `{elaboration.template.label}`: {listed(fold(elaboration.copied, elaboration.space), 8)}"
        rows.append(("", "(the rest)", f"{len(elaboration.copied):,}", ""))
    taken = 2 + sum(2 + max(len(row[k]) for row in rows) for k in range(3))
    lines = columns([(*row[:3], clip(row[3], WIDTH - taken)) for row in rows], right=(0, 2))
    if copied:
        first, *more = textwrap.wrap(escape(copied), WIDTH - taken, break_on_hyphens=False)
        lines[-1] = lines[-1].ljust(taken) + first
        lines.extend(" " * taken + rest for rest in more)
    return lines


def _whole_model(compilation: Compilation, further: Sequence[WholePass]) -> list[str]:
    rows = [("line", "pass", "reads", "of", "for", "statement")]
    passes: Counter[int] = Counter()
    for each in further:
        passes[each.statement] += 1
        statement = compilation.recipe.assignments[each.statement].statement
        line, _ = statement.span.source.position(statement.span.start)
        whose = clip(f"{count(each.tensors, 'tensor')} of {', '.join(each.models)}", 36)
        value = format_expression(statement.value)
        rows.append((str(line), str(passes[each.statement]), size(each.nbytes), whose, ", ".join(each.finds), value))
    taken = 2 + sum(2 + max(len(row[k]) for row in rows) for k in range(5))
    return columns([(*row[:5], clip(row[5], max(12, WIDTH - taken))) for row in rows], right=(0, 1, 2))
