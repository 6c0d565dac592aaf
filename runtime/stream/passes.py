"""One pass: sweeps over its blocks, which stream through the lanes, as often as its reductions
need. Needs no torch.

What a lane does with a block is up to its backend: `portable/` has torch's kernels, for every
device and operation; `native/` has the compiled ones, for the CPU and the operations that they
know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ...compiler.ops.table import OPS, SCALARS
from ...compiler.plan.liveness import code_for
from ...compiler.plan.owners import Owners
from ...compiler.plan.plan import CHUNK, Constant, Instruction, Pass, Plan, Reduction, Scalar, ToFile
from ...compiler.plan.scratch import ScratchLayout
from ...grammar.records import dataclass
from ..machine.hardware import usable_cores
from ..machine.lanes import Lanes
from ..machine.memory import Arena, Buffer
from ..reduce.reducer import Attributes, Reducer, Result, Threshold
from ..reduce.selection import RankSelection
from .interfaces import Reads, Tally, Writes

SAMPLED = 16
"""For a guess, one of this many parts of a tensor is looked at; of large tensors (`ENOUGH`)
fewer."""

ENOUGH = 1 << 20
"""Elements that are enough for a guess; beyond them, one of 16 * SAMPLED is added."""

SAMPLE = CHUNK // 4
"""Elements of a part: the more parts, the better they represent all, and the higher the fixed cost
of each."""

WORTH_A_GUESS = 16 * CHUNK
"""With fewer elements, a guess costs more than the rounds that it spares."""


FEW_BLOCKS = 8
"""Blocks of a lane in a round that is over soon."""


@dataclass(frozen=True, slots=True)
class Context:
    """What all passes of a run share; `scalars` and `buffers` change as steps run."""

    plan: Plan
    reads: Reads
    writes: Writes[Any]
    lanes: Lanes
    tally: Tally
    scalars: list[Result]
    buffers: dict[int, Buffer]
    owners: Owners

    def number(self, argument: Scalar | Constant) -> float:
        """The value of an argument that is a number. Raises RuntimeError for anything else."""
        value = self.plain(argument)
        if isinstance(value, dict):
            raise RuntimeError("counts are for scalar code alone")
        return value

    def plain(self, argument: Scalar | Constant) -> float | dict[int, int]:
        """The value of an argument of scalar code."""
        value = self.scalars[argument.index] if isinstance(argument, Scalar) else argument.value
        if isinstance(value, Threshold):
            raise RuntimeError("a threshold is not a number")
        return value

    def not_finite(self, store: ToFile, found: int) -> None:
        """Counts infinities and NaNs of a store."""
        if found:
            owner = self.owners.of(store.file, store.start)
            assert owner is not None
            self.tally.found(self.plan.tensors[owner].name, found)


class Lane(Protocol):
    """What one lane does in one pass."""

    def begin(self, code: tuple[Instruction, ...], active: Sequence[tuple[int, Reducer]], *, again: bool) -> None:
        """A round over all blocks begins: this code, these reductions and, unless the pass is run
        `again`, the stores."""
        ...

    def run(self, first: int, count: int) -> None:
        """Elements `[first, first + count)`."""
        ...


class Backend(Protocol):
    """A set of kernels for one kind of machine."""

    def reducer(self, op: str, attributes: Attributes, numel: int) -> Reducer: ...

    def lane(self, pass_: Pass, layout: ScratchLayout, arena: Arena, index: int) -> Lane: ...

    @property
    def samples(self) -> bool:
        """Whether lanes can count the windows that a sample suggests (`selection.py`)."""
        ...


def run_pass(context: Context, pass_: Pass, layout: ScratchLayout, arenas: Sequence[Arena], backend: Backend) -> None:
    """Runs a pass to its end; there are as many arenas as lanes can be busy with it."""
    reducers = [backend.reducer(r.op, _attributes(context, r), pass_.numel) for r in pass_.reductions]
    lanes = [backend.lane(pass_, layout, arena, index) for index, arena in enumerate(arenas)]

    def stream(size: int, blocks: range, active: Sequence[int], *, again: bool) -> list[int]:
        """One round over these blocks of `size` elements; which of the active reductions need
        another."""
        code = code_for(pass_.code, [a for i in active for a in pass_.reductions[i].args]) if again else pass_.code
        busy = _busy(context, len(lanes), len(blocks), writes=bool(pass_.stores) and not again)
        for lane in lanes[:busy]:
            lane.begin(code, [(i, reducers[i]) for i in active], again=again)

        def work(lane: int, index: int) -> None:
            first = blocks[index] * size
            lanes[lane].run(first, min(size, pass_.numel - first))

        context.lanes.spread(len(blocks), work, busy)
        for i in active:
            reducers[i].finish_round()
        return [i for i in active if not reducers[i].done]

    if backend.samples and pass_.numel >= WORTH_A_GUESS and (unsure := _to_guess(reducers)):
        # operations along rows see whole ones only where blocks are as planned
        part = pass_.block if any(k == "row" for i in pass_.code for k, _ in i.attributes) else min(SAMPLE, pass_.block)
        parts = range(-(-pass_.numel // part))
        every = _every(pass_.numel)
        stream(part, parts[min(len(parts), every) // 2 :: every], unsure, again=True)
    size, blocks = pass_.block, range(-(-pass_.numel // pass_.block) if pass_.numel else 0)
    active = stream(size, blocks, range(len(reducers)), again=False)
    while active:
        active = stream(size, blocks, active, again=True)
    for reduction, reducer in zip(pass_.reductions, reducers, strict=True):
        context.scalars[reduction.out.index] = reducer.result()
    for scalar in pass_.scalars:
        context.scalars[scalar.out.index] = SCALARS[scalar.op](*(context.plain(a) for a in scalar.args))


def _busy(context: Context, lanes: int, blocks: int, *, writes: bool) -> int:
    """How many of these lanes a round is worth.

    One more than the cores computes while another waits for the disk. A round over few blocks that
    writes nothing hardly waits, and there it would only be in the way of the others, unless each
    has a block of its own: then the system shares the cores out among them.
    """
    lanes = max(1, min(lanes, blocks))
    if writes or blocks == lanes or blocks > FEW_BLOCKS * lanes or context.plan.device != "cpu":
        return lanes
    return min(lanes, usable_cores())


def _attributes(context: Context, reduction: Reduction) -> dict[str, Any]:
    """A reduction's attributes, and its inputs that are numbers under their names."""
    numbers = [context.plain(a) for a in reduction.args if isinstance(a, Scalar | Constant)]
    return dict(reduction.attributes) | dict(zip(OPS[reduction.op].numbers, numbers, strict=True))


def _every(numel: int) -> int:
    """Of how many parts of a tensor one is sampled."""
    fewest = ENOUGH + numel // (16 * SAMPLED)
    return max(SAMPLED, numel // fewest)


def _to_guess(reducers: Sequence[Reducer]) -> list[int]:
    """The reducers that a guess helps; they take the round that follows as a sample."""
    found = []
    for i, reducer in enumerate(reducers):
        if isinstance(reducer, RankSelection) and not reducer.done:
            reducer.sample()
            found.append(i)
    return found
