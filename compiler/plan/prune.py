"""A plan with less to do: what is finished already is skipped, what another file holds is copied
from there.

A tensor that is done needs none of its steps, but another may need the numbers that they give: a
sum of squares, a threshold, a decomposition. So steps are gone through backwards, from the tensors
that are still to be made to all that these need.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ...grammar.records import dataclass
from ..checkpoint.catalog import InputFile
from .concurrency import by_output, possible, reserved
from .costs import costed, live_bytes, with_liveness, without_liveness
from .liveness import code_for
from .owners import Owners
from .plan import (
    Allocation,
    Copy,
    Extent,
    Instruction,
    Load,
    Opaque,
    OutputTensor,
    Pass,
    Plan,
    Scalar,
    Step,
    ToBuffer,
    ToFile,
    held_in,
)


@dataclass(frozen=True, slots=True)
class Found:
    """Bytes that an output tensor is to get, as they lie in another file: from byte `start` of
    `file`."""

    file: InputFile
    start: int


def reuse(plan: Plan, found: Mapping[int, Found]) -> Plan:
    """The plan with some tensors, given by their index in `plan.tensors`, copied from where they
    were found."""
    if not found:
        return plan
    files = list(dict.fromkeys(f.file for f in found.values()))
    number = {file: len(plan.inputs) + k for k, file in enumerate(files)}
    copies = []
    for index in sorted(found):
        tensor, file, start = plan.tensors[index], found[index].file, found[index].start
        if tensor.nbytes:
            copy = Copy((Extent(number[file], start, tensor.nbytes),), tensor.file, tensor.start)
            copies.append(Step(copy, (), (), index, 0, 0, tensor.nbytes, tensor.nbytes))
    rest = prune(plan, found)
    return _with_steps(replace(rest, inputs=(*plan.inputs, *files)), [*copies, *rest.steps])


def prune(plan: Plan, done: Collection[int]) -> Plan:
    """The plan without the tensors in `done` (indices into `plan.tensors`), and without all that
    only they need.

    What is left is computed as before, in the same order: its bytes are the same.
    """
    if not done:
        return plan
    places = _Places(plan.tensors, frozenset(done))
    scalars: set[int] = set()
    buffers: set[int] = set()
    kept: list[Step] = []
    live = live_bytes(plan.steps)
    for step, held in zip(reversed(plan.steps), reversed(live), strict=True):
        needed = _needed(step, held, places, scalars, buffers, plan)
        if needed is not None:
            kept.append(needed)
        # before it there is another buffer of that number
        buffers.difference_update(a.buffer for a in step.allocate)
    return _with_steps(plan, with_liveness(_with_releases(kept[::-1]), plan.device))


def _with_steps(plan: Plan, steps: Sequence[Step]) -> Plan:
    host = max((s.host for s in steps), default=0)
    if possible(plan.device, plan.compute):
        host = reserved(by_output(steps), plan.lanes, host, plan.peak_host)
    return replace(
        plan,
        steps=tuple(steps),
        peak_host=host,
        peak_device=max((s.device for s in steps), default=0),
        reads=sum(s.reads for s in steps),
        writes=sum(s.writes for s in steps),
    )


class _Places:
    """Whether what a store or a copy writes is of a finished tensor."""

    def __init__(self, tensors: Sequence[OutputTensor], done: frozenset[int]) -> None:
        self._owners, self._done = Owners(tensors), done

    def done(self, place: ToFile | Copy) -> bool:
        return self._owners.of(place.file, place.start) in self._done


def _needed(step: Step, held: int, places: _Places, scalars: set[int], buffers: set[int], plan: Plan) -> Step | None:
    """The step, or what is needed of it; None where nothing is. `held` is the bytes of the buffers
    that live in it.

    `scalars` and `buffers` are those that later steps need; they gain those that this one needs,
    and `scalars` lose those that it makes, as their numbers are used again and again.
    """
    match step.action:
        case Copy() as copy:
            return None if places.done(copy) else without_liveness(step, held, plan.device)
        case Load() as load:
            return without_liveness(step, held, plan.device) if load.buffer in buffers else None
        case Opaque() as opaque:
            if opaque.output not in buffers:
                return None
            buffers.update(i.buffer for i in opaque.inputs)
            scalars.update(s.index for s in opaque.scalars if isinstance(s, Scalar))
            return without_liveness(step, held, plan.device)
        case Pass() as whole:
            part = _pass(whole, places, scalars, buffers)
            if part is None:
                return None
            if part == whole:
                return without_liveness(step, held, plan.device)
            return costed(step, part, compute=plan.compute, device=plan.device)


def _pass(whole: Pass, places: _Places, scalars: set[int], buffers: set[int]) -> Pass | None:
    """The pass without the stores, reductions, numbers and code that nothing needs; None where all
    of it goes."""
    stores = tuple(s for s in whole.stores if (s.buffer in buffers if isinstance(s, ToBuffer) else not places.done(s)))
    numbers = []
    for scalar in reversed(whole.scalars):
        if scalar.out.index in scalars:
            numbers.append(scalar)
            scalars.discard(scalar.out.index)
            scalars.update(a.index for a in scalar.args if isinstance(a, Scalar))
    reductions = tuple(r for r in whole.reductions if r.out.index in scalars)
    scalars.difference_update(r.out.index for r in reductions)
    if not (stores or reductions or numbers):
        return None
    reduced = [a for r in reductions for a in r.args]
    code = code_for(whole.code, [*(s.value for s in stores), *reduced])
    given = [a for i in code for a in i.args] + reduced
    scalars.update(a.index for a in given if isinstance(a, Scalar))
    used = sorted({int(dict(i.attributes)["operand"]) for i in code if i.op == "load"})
    renumbered = {old: new for new, old in enumerate(used)}
    operands = tuple(whole.operands[k] for k in used)
    buffers.update(h.buffer for o in operands for h in held_in(o))
    return replace(
        whole,
        operands=operands,
        code=tuple(_renumbered(i, renumbered) for i in code),
        reductions=reductions,
        scalars=tuple(reversed(numbers)),
        stores=stores,
    )


def _renumbered(instruction: Instruction, operands: Mapping[int, int]) -> Instruction:
    if instruction.op != "load":
        return instruction
    changed = [(k, operands[int(v)] if k == "operand" else v) for k, v in instruction.attributes]
    return replace(instruction, attributes=tuple(changed))


def _with_releases(steps: Sequence[Step]) -> list[Step]:
    """The steps with buffers that appear where they are filled and go after their last use."""
    out = []
    later: set[int] = set()
    for step in reversed(steps):
        used = set(_buffers(step.action))
        ending = used - later
        later |= used
        made: Sequence[Allocation] = [a for a in step.allocate if a.buffer in later]
        later.difference_update(a.buffer for a in step.allocate)
        out.append(replace(step, allocate=tuple(made), release=tuple(sorted(ending))))
    return out[::-1]


def _buffers(action: Pass | Copy | Load | Opaque) -> list[int]:
    """The held buffers that a step fills or reads."""
    match action:
        case Copy():
            return []
        case Load():
            return [action.buffer]
        case Opaque():
            return [action.output, *(i.buffer for i in action.inputs)]
        case Pass():
            stored = [s.buffer for s in action.stores if isinstance(s, ToBuffer)]
            return stored + [h.buffer for o in action.operands for h in held_in(o)]
