"""Graph to steps: what is computed in which pass over which bytes, and how much memory that takes.

Each distinct output value has its own steps (`steps.py`). Numbers that reductions give are kept for
good (they are a few bytes), so a value needed by two outputs is reduced once.

Outputs that are computed alike are scheduled once, as a `StepTemplate` (`templates.py`); the steps
of each are made from it when they are asked for, so that a budget can be tried without making them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ...grammar.records import dataclass
from ..checkpoint.model import Model
from ..graph.graph import EquivalenceClass, Graph, Output
from ..pack.slots import Origins, Slot
from ..plan.concurrency import possible, reserved
from ..plan.machine import Machine, devices_of
from ..plan.plan import Scalar, Step
from .barriers import barrier_levels
from .steps import Numbering, Setting, ValueSteps
from .templates import StepTemplate, extents_of


@dataclass(frozen=True, slots=True)
class SchedulePart:
    """Steps of the schedule: those of outputs with a value of their own, or a template and an
    output to make them for.

    `like` are the steps themselves, or in the template's case those of another output that is
    computed alike.
    """

    like: tuple[Step, ...]
    template: StepTemplate | None = None
    output: Output | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps in order, still in parts, and what they cost.

    `scalars` is their number, `lanes` how many blocks are in flight; `host` and `device` are the
    most bytes that are live at any step, or while outputs are made side by side; `reads` and
    `writes` are the bytes of files that all steps together read and write.
    """

    parts: tuple[SchedulePart, ...]
    scalars: int
    lanes: int
    host: int
    device: int
    reads: int
    writes: int
    slots: Mapping[str, Slot]

    def kinds(self) -> Counter[type]:
        """How many steps there are of each kind of action."""
        found: Counter[type] = Counter()
        for part in self.parts:
            found.update(type(step.action) for step in part.like)
        return found

    def files(self) -> set[int]:
        """The input files that any step reads from."""
        found: set[int] = set()
        for part in self.parts:
            if part.template is None or part.output is None:
                found.update(e.file for step in part.like for e in extents_of(step.action))
            else:
                found.update(part.template.files(part.output))
        return found

    def steps(self) -> tuple[Step, ...]:
        """All steps, those of one output after the other."""
        return tuple([step for part in self.parts for step in self.steps_of(part)])

    def steps_of(self, part: SchedulePart) -> Sequence[Step]:
        """The steps of one part."""
        if part.template is None or part.output is None:
            return part.like
        return part.template.steps(part.output, self.slots[part.output.name])


def schedule(
    graph: Graph,
    slots: Mapping[str, Slot],
    models: Sequence[Model],
    files: Mapping[tuple[int, int], int],
    machine: Machine,
    budget: int | None = None,
) -> Schedule:
    """The schedule of a graph. What it holds on the host is within `budget`, if any schedule for
    the machine is.

    `slots` says where each output lies; `files` maps (model number, its file) to the plan's input
    files.
    """
    setting = Setting(barrier_levels(graph.nodes), slots, Origins(models, files), machine, Numbering())
    scalars: dict[int, Scalar] = {}
    templates: dict[EquivalenceClass, StepTemplate] = {}
    parts: list[SchedulePart] = []
    for outputs in _in_order(graph, slots):
        output, equivalence = outputs[0], outputs[0].equivalence
        if equivalence is None:
            parts.append(SchedulePart(ValueSteps(setting, outputs, scalars).steps))
            continue
        template = templates.get(equivalence)
        if template is None:
            # no other output has to do with these nodes: their numbers are made for each anew
            made = ValueSteps(setting, outputs, {})
            template = templates[equivalence] = StepTemplate(made.steps, equivalence, made.streams, setting.origins)
        parts.append(SchedulePart(template.like, template, output))
    # of equal parts the figures are taken once
    counts = Counter(id(part.like) for part in parts)
    found = [(counts[key], like) for key, like in {id(part.like): part.like for part in parts}.items()]
    # every device has staging of its own on the host
    host = max((s.host for _, like in found for s in like), default=0) * len(devices_of(machine.device))
    if possible(machine.device, machine.compute):
        host = reserved(found, machine.lanes, host, budget)
    return Schedule(
        tuple(parts),
        setting.numbering.scalars,
        machine.lanes,
        host=host,
        device=max((s.device for _, like in found for s in like), default=0),
        reads=sum(count * s.reads for count, like in found for s in like),
        writes=sum(count * s.writes for count, like in found for s in like),
        slots=slots,
    )


def _in_order(graph: Graph, slots: Mapping[str, Slot]) -> list[list[Output]]:
    """The outputs, those of one value together, by their place in the files: inputs mostly have one
    order, so reads follow their order too."""
    values: dict[int, list[Output]] = {}
    single: list[list[Output]] = []
    for output in graph.outputs:
        if output.equivalence is None:
            values.setdefault(output.node.id, []).append(output)
        else:
            single.append([output])

    def place(outputs: list[Output]) -> tuple[int, int]:
        return min((slots[o.name].file, slots[o.name].start) for o in outputs)

    return sorted([*values.values(), *single], key=place)
