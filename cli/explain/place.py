"""Everything about one tensor: statement, inputs, arithmetic with numbers resolved, passes, place
in the output."""

from __future__ import annotations

import dataclasses

from ...compiler.checkpoint.model import Model
from ...compiler.evaluate.expressions import place_path
from ...compiler.family.folding import fold
from ...compiler.graph.graph import Node, Output, StoredRange, below, value_of
from ...compiler.ops.table import OPS
from ...compiler.pipeline import Compilation
from ...compiler.plan.plan import Copy, Load, Pass, Step, ToFile
from ...grammar import ast
from ...grammar.diagnostic import Diagnostic, Label, MergecError, error
from ...grammar.parse import parse
from ...grammar.render import escape
from ...grammar.source import Source, Span
from ..formatter.format import format_expression
from ..terminal.amounts import memory, size
from ..terminal.columns import WIDTH, clip, facts
from .checkpoint import listed, numel


def explain_place(compilation: Compilation, place_text: str) -> str:
    """The explanation of the first tensor at a place of the output, and a list of the others there.

    Raises MergecError: E01xx for text that is no place, E0301 to E0304 for a place that the output
    does not have.
    """
    elaboration = compilation.elaboration
    names = _names(compilation, place_text)
    outputs = {o.name: o for o in compilation.graph.outputs}
    # a tied name is explained by the tensor that is stored
    name = elaboration.ties.get(names[0], names[0])
    value = value_of(outputs[name])
    parts = [_head(compilation, outputs[name], names)]
    parts.append(["inputs", *_inputs(compilation, value)])
    parts.append(["value", *_value(compilation, value)])
    parts.append(["steps", *_steps(compilation, outputs[name])])
    if len(names) > 1:
        shown = listed(fold(names, elaboration.space), 12)
        parts.append([f"{len(names):,} tensors at this place, of which this is the first", *facts([("", shown)], 0)])
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _names(compilation: Compilation, text: str) -> list[str]:
    """The output's tensors at the place that a text spells. Raises MergecError, which points into
    that text."""
    source = Source("<place>", text)
    try:
        statements = parse(Source(source.name, text + " = 0")).statements
    except MergecError as error:
        raise _no_place(source) from error
    if len(statements) != 1 or not isinstance(statements[0], ast.Assign) or "\n" in text:
        raise _no_place(source)
    try:
        return list(compilation.elaboration.space.select(place_path(statements[0].place)).names)
    except MergecError as error:
        raise MergecError([_within(d, source) for d in error.diagnostics]) from None


def _within(diagnostic: Diagnostic, source: Source) -> Diagnostic:
    labels = tuple(Label(Span(source, x.span.start, x.span.end), x.text) for x in diagnostic.labels)
    return dataclasses.replace(diagnostic, labels=labels)


def _no_place(source: Source) -> MergecError:
    help_ = "a place is a path such as `layers[3].attn.q`, a glob in quotes, or `*`"
    return error("E0108", f"`{source.text}` is not a place", help=help_, file=source.name)


# --- what and why ---------------------------------------------------------------------------------


def _head(compilation: Compilation, output: Output, names: list[str]) -> list[str]:
    elaboration, packing = compilation.elaboration, compilation.packing
    rows = [("statement", _statement(compilation, output))]
    if output.name != names[0]:
        rows.append(("tied", f"`{escape(names[0])}` is stored as this tensor"))
    tied = [
        escape(alias) for alias, primary in elaboration.ties.items() if primary == output.name and alias != names[0]
    ]
    if tied:
        rows.append(("tied", f"also {listed(tied)}: one tensor"))
    slot = compilation.packing.slots[output.name]
    stored = packing.tensors[slot.tensor]
    nbytes = numel(output.shape) * (stored.nbytes // max(1, numel(stored.shape)))
    compute = "float64" if compilation.settings.compute == "F64" else "float32"
    rounded = "" if output.node.op == "source" else f", computed in {compute} and rounded once"
    rows += [
        ("shape", f"{list(output.shape)}, {numel(output.shape):,} elements"),
        ("dtype", output.dtype + rounded),
        ("written to", f"{packing.files[slot.file].name}, {_bytes(slot.start, nbytes)}"),
    ]
    if stored.name != output.name:
        rows.append(("stored in", f"`{escape(stored.name)}`, {list(stored.shape)}"))
    return [escape(output.name), *facts(rows)]


def _statement(compilation: Compilation, output: Output) -> str:
    if output.statement is None:
        return f"none: copied from the template, `{escape(compilation.elaboration.template.label)}`"
    assignment = compilation.recipe.assignments[output.statement]
    span = assignment.statement.span
    where = f"{escape(span.source.name)}:{span.source.position(span.start)[0]}"
    place, value = (format_expression(e) for e in (assignment.statement.place, assignment.statement.value))
    return f"{where}  {escape(place)} = {escape(value)}"


def _bytes(start: int, nbytes: int) -> str:
    return f"bytes {start:,} to {start + nbytes:,} ({size(nbytes)})"


# --- inputs ---------------------------------------------------------------------------------------


def _models(compilation: Compilation) -> dict[int, Model]:
    found: dict[int, Model] = {}
    for model in compilation.recipe.inputs:
        found.setdefault(model.number, model)
    return found


def _inputs(compilation: Compilation, node: Node) -> list[str]:
    models = _models(compilation)
    lines: list[str] = []
    for source in below([node]):
        if source.op != "source":
            continue
        place: StoredRange = source.attribute("range")
        model = models[place.model]
        stored = model.checkpoint.tensors[place.stored]
        width = stored.nbytes // max(1, numel(stored.shape))
        start = stored.start + place.first * width
        shape = source.shape or ()
        names = [n for n, v in model.tensors.items() if (v.stored, v.first) == (place.stored, place.first)]
        rows = [
            ("tensor", f"{escape(names[0] if names else place.stored)}, {place.dtype} {list(shape)}"),
            ("file", f"{escape(model.checkpoint.files[stored.file].path)}"),
            ("", _bytes(start, numel(shape) * width)),
        ]
        if stored.name not in names or shape != stored.shape:
            part = "" if numel(shape) == numel(stored.shape) else f", elements from {place.first:,} on"
            rows.insert(1, ("stored as", f"{escape(stored.name)} {list(stored.shape)}{part} (layout {model.layout})"))
        tied = [a for a, p in model.aliases.items() if p in names]
        if tied:
            rows.append(("tied", f"also {listed(escape(t) for t in tied)}"))
        lines += [f"  {escape(model.label)}", *facts(rows, 4)]
    return lines or ["  none"]


# --- arithmetic -----------------------------------------------------------------------------------


_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_SIGNS |= {"eq": "==", "ne": "!=", "and": "and", "or": "or"}


def _value(compilation: Compilation, node: Node) -> list[str]:
    """The nodes numbered, each once; constants stand where they are used."""
    models = _models(compilation)
    numbers: dict[int, str] = {}
    rows: list[tuple[str, str]] = []
    for each in below([node]):
        if each.op == "const":
            numbers[each.id] = _number(float(each.attribute("value")))
            continue
        numbers[each.id] = f"%{len(rows) + 1}"
        rows.append((numbers[each.id], _formula(each, numbers, models)))
    return facts([(number, clip(text, WIDTH - 8)) for number, text in rows])


def _number(value: float) -> str:
    """`1` for 1.0, and else the shortest text that is that number."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _formula(node: Node, numbers: dict[int, str], models: dict[int, Model]) -> str:
    args = [numbers[i.id] for i in node.inputs]
    if node.op == "source":
        return models[node.attribute("range").model].label
    if node.op in _SIGNS:
        return f"{args[0]} {_SIGNS[node.op]} {args[1]}"
    if node.op == "gather" and "width" in dict(node.attributes):
        return f"resize({', '.join(args)}) to {list(node.shape or ())}"
    if node.op == "gather":
        return f"gather({', '.join(args)}) by token: {node.shape[0] if node.shape else 0:,} rows"
    if node.op in ("installed", "installed_whole"):
        return f"{node.attribute('name')}({', '.join(args)})"
    given = [f"{k}={v:,}" if isinstance(v, int) and k != "key" else f"{k}={v}" for k, v in node.attributes]
    if node.op == "threshold":
        given = [f"k={node.attribute('k'):,} of {numel(node.inputs[0].shape or ()):,}"]
    text = f"{node.op}({', '.join([*args, *given])})"
    return text + (" (one number)" if node.op in OPS and OPS[node.op].kind == "reduction" else "")


# --- steps ----------------------------------------------------------------------------------------


def _steps(compilation: Compilation, output: Output) -> list[str]:
    steps = _steps_for(compilation, output)
    return facts([(str(k + 1), _step(step)) for k, step in enumerate(steps)])


def _steps_for(compilation: Compilation, output: Output) -> list[Step]:
    """The step that stores the tensor, and those that prepare it, which come right before."""
    slot = compilation.packing.slots[output.name]
    for part in compilation.schedule.parts:
        if part.output is None or part.output.name == output.name:
            steps = compilation.schedule.steps_of(part)
            for k, step in enumerate(steps):
                if (slot.file, slot.start) in _targets(step):
                    first = k
                    while first and steps[first - 1].tensor == step.tensor and not _targets(steps[first - 1]):
                        first -= 1
                    return list(steps[first : k + 1])
    return []


def _targets(step: Step) -> set[tuple[int, int]]:
    if isinstance(step.action, Copy):
        return {(step.action.file, step.action.start)}
    if isinstance(step.action, Pass):
        return {(s.file, s.start) for s in step.action.stores if isinstance(s, ToFile)}
    return set()


def _step(step: Step) -> str:
    action = step.action
    if isinstance(action, Copy):
        return f"copies {size(step.writes)} byte for byte"
    if isinstance(action, Load):
        return f"loads {size(step.reads)} to the device"
    if not isinstance(action, Pass):
        return f"{action.op} on whole tensors, {memory(step.host)}"
    words = [f"reads {size(step.reads)} in blocks of {action.block:,} elements on {action.lanes} lanes"]
    operations = sum(i.op != "load" for i in action.code)
    if operations:
        words.append(f"{operations} operation{'' if operations == 1 else 's'} an element")
    if action.reductions:
        words.append("reduces to " + listed(r.op for r in action.reductions))
    if action.stores:
        words.append(f"writes {size(step.writes)}")
    return ", ".join(words) + f"; {memory(max(step.host, step.device))}"
