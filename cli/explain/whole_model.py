"""Which statements read their models more often than once, for numbers of the whole model.

Such a number (`across`, `model_threshold`) is not known before all of its tensors have been
streamed, so each costs passes over them before the pass that writes.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...compiler.checkpoint.dtypes import SIZES
from ...compiler.graph.graph import Node
from ...compiler.ops.shapes import elements
from ...compiler.ops.table import OPS
from ...compiler.pipeline import Compilation
from ...grammar.records import dataclass

_WHOLE = frozenset(name for name, row in OPS.items() if row.whole_model)
"""The operations on numbers of all tensors."""


@dataclass(frozen=True, slots=True)
class WholePass:
    """One pass over the models of statement number `statement` before it can be written.

    It streams `tensors` stored tensors of `models`, `nbytes` in all, for what `finds` names.
    """

    statement: int
    models: tuple[str, ...]
    tensors: int
    nbytes: int
    finds: tuple[str, ...]


def whole_passes(compilation: Compilation) -> list[WholePass]:
    """The further passes over whole models, statement by statement, in the order in which they
    run."""
    live = compilation.graph.live()
    if not any(n.op in _WHOLE for n in live):
        return []
    level = _levels(live)
    labels: dict[int, str] = {}
    for model in compilation.recipe.models:
        labels.setdefault(model.number, model.label)
    out: list[WholePass] = []
    for assignment in compilation.recipe.assignments:
        outputs = [o.node for o in compilation.graph.outputs if o.statement == assignment.number]
        rounds: dict[int, list[Node]] = {}
        for node in _below(outputs):
            if node.op in _WHOLE:
                for reduction in _reductions(node):
                    rounds.setdefault(level[reduction.id], []).append(reduction)
        for number in sorted(rounds):
            reductions = list(dict.fromkeys(rounds[number]))
            blocks = [i for r in reductions for i in r.inputs if i.shape is not None]
            sources = [n for n in _below(blocks, numbers=False) if n.op == "source"]
            models = dict.fromkeys(labels[n.attribute("range").model] for n in sources)
            nbytes = sum(elements(n.shape) * SIZES[n.attribute("range").dtype] for n in sources)
            finds = dict.fromkeys(OPS[r.op].finds or r.op for r in reductions)
            out.append(WholePass(assignment.number, tuple(models), len(sources), nbytes, tuple(finds)))
    return out


def _levels(nodes: Iterable[Node]) -> dict[int, int]:
    """How many passes must end before each node's value is known."""
    level: dict[int, int] = {}
    for node in nodes:
        barrier = node.op in OPS and OPS[node.op].kind in ("reduction", "opaque")
        level[node.id] = max((level[i.id] for i in node.inputs), default=0) + barrier
    return level


def _below(roots: Iterable[Node], *, numbers: bool = True) -> list[Node]:
    """What the roots are made from, themselves included, in topological order; without what is
    behind numbers."""
    found = {n.id: n for n in roots}
    todo = list(found.values())
    while todo:
        for source in todo.pop().inputs:
            if source.id not in found and (numbers or source.shape is not None):
                found[source.id] = source
                todo.append(source)
    return [found[k] for k in sorted(found)]


def _reductions(node: Node) -> list[Node]:
    """The reductions whose numbers a number is made from, not those below them."""
    found: dict[int, Node] = {}
    seen = {node.id}
    todo = [i for i in node.inputs if i.op not in _WHOLE]
    while todo:
        n = todo.pop()
        if n.id in seen or n.shape is not None:
            continue
        seen.add(n.id)
        if n.op in OPS and OPS[n.op].kind == "reduction":
            found[n.id] = n
        elif n.op not in _WHOLE:
            todo.extend(n.inputs)
    return [found[k] for k in sorted(found)]
