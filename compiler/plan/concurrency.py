"""Which outputs are made side by side, each by one lane (worker thread), and what that takes.

The schedule reserves memory for it, and the executor does it within that: both ask here, so that
they agree.

Lanes that share the blocks of a tensor share its held buffers too. A lane that makes a whole output
has its own ones, beside its scratch. Outputs need unlike amounts of both, so those that are made at
the same time are chosen by what they need, and each lane has as much memory as any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

from ...grammar.records import dataclass
from .plan import Gather, Opaque, Pass, Scalar, Step, ToFile, held_in
from .scratch import aligned

MEDIUM = 1 << 24
"""Elements of the largest tensors that one lane makes: a round over more lasts long enough for its
end not to show. With four blocks per tensor, sharing them takes 1.1 times the processor time
(`benchmarks/batching.py`)."""

ENOUGH = 2
"""Medium tensors for every lane, without which they are not made side by side: all others wait for
the last one."""

AT_MOST = 2
"""How many times what the steps hold one by one a plan reserves for this at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The steps of one output of medium size, each a pass. `makes` are the scalars that they make:
    outputs that are computed alike have them in common, and the buffers. They read no others.

    `needs` is what a lane holds that makes all of it, in bytes: scratch, and behind it the buffers,
    none of which goes before the last step. `sharing` is how many lanes its blocks keep busy
    otherwise.
    """

    steps: tuple[Step, ...]
    makes: Set[int]
    needs: int
    sharing: int


@dataclass(frozen=True, slots=True, eq=False)
class ConcurrentOutputs:
    """Outputs in any order, of which `lanes` are made at a time."""

    members: tuple[Series, ...]
    lanes: int

    @property
    def needs(self) -> int:
        """Bytes that each of the lanes needs."""
        return max([member.needs for member in self.members])


def series_of(steps: Sequence[Step], reads: Set[int], makes: Set[int]) -> Series | None:
    """The steps of one output as a series; None where one of them is too large, or they need what
    others have made.

    `reads` are the scalars that they read and none of them has made before, `makes` those that they
    make.
    """
    passes = [s.action for s in steps if isinstance(s.action, Pass)]
    if reads or len(passes) < len(steps) or not _closed(steps) or not all(0 < p.numel <= MEDIUM for p in passes):
        return None
    buffers = needs = 0
    for step, pass_ in zip(steps, passes, strict=True):
        buffers += sum(aligned(a.nbytes) for a in step.allocate)
        needs = max(needs, pass_.nbytes + buffers)
    return Series(tuple(steps), makes, needs, max(min(p.lanes, -(-p.numel // p.block)) for p in passes))


def side_by_side(series: Sequence[Series], lanes: int, room: int) -> list[ConcurrentOutputs]:
    """The outputs that are made side by side where all of them may hold `room` bytes, each in as
    many lanes as that is enough for. Skipped are those that more lanes would share otherwise, and
    all where they are few."""
    able = {k: min(lanes, room // s.needs) for k, s in enumerate(series)}
    able = {k: fitting for k, fitting in able.items() if fitting >= max(2, series[k].sharing)}
    # those that need the most have the fewest lanes; others join them where they are too few for
    # more
    found: list[tuple[int, list[int]]] = []
    for k in sorted(able, key=lambda k: -series[k].needs):
        if not found or (found[-1][0] < able[k] and len(found[-1][1]) >= ENOUGH * found[-1][0]):
            found.append((able[k], []))
        found[-1][1].append(k)
    if len(found) > 1 and len(found[-1][1]) < ENOUGH * found[-1][0]:
        _, last = found.pop()
        found[-1][1].extend(last)
    enough = [(fitting, members) for fitting, members in found if len(members) >= ENOUGH * fitting]
    return [ConcurrentOutputs(tuple([series[k] for k in sorted(members)]), fitting) for fitting, members in enough]


def possible(device: str, compute: str) -> bool:
    """Whether outputs can be made side by side at all: where the compiled kernels run."""
    return device == "cpu" and compute == "F32"


def reserved(outputs: Iterable[tuple[int, Sequence[Step]]], lanes: int, held: int, budget: int | None = None) -> int:
    """The most bytes that a plan holds of which any single step holds `held` at most: more, within
    AT_MOST and the budget, where that lets outputs be made side by side that have held buffers.

    `outputs` are the steps of one output each, and how many there are that are computed alike.
    """
    # more than enough of a kind change nothing
    series = _candidates([(min(n, ENOUGH * lanes), steps) for n, steps in outputs]) if lanes > 1 else []
    most = AT_MOST * held if budget is None else min(AT_MOST * held, budget)
    fitting = [(min(lanes, most // s.needs), s) for s in series if any(step.allocate for step in s.steps)]
    room = max([held, *(k * s.needs for k, s in fitting if k >= s.sharing)])
    return max([held, *(group.lanes * group.needs for group in side_by_side(series, lanes, room))])


def by_output(steps: Sequence[Step]) -> Iterator[tuple[int, list[Step]]]:
    """A plan's steps, those of one output at a time."""
    run: list[Step] = []
    for step in steps:
        if run and step.tensor != run[0].tensor:
            yield 1, run
            run = []
        run.append(step)
        if isinstance(step.action, Pass) and any(isinstance(s, ToFile) for s in step.action.stores):
            yield 1, run
            run = []
    if run:
        yield 1, run


def numbers(pass_: Pass) -> tuple[Set[int], Set[int]]:
    """The scalars that a pass reads and has not made itself, and those that it makes."""
    given = [a for i in pass_.code for a in i.args] + [a for r in pass_.reductions for a in r.args]
    reads = {a.index for a in given if isinstance(a, Scalar)}
    makes = {r.out.index for r in pass_.reductions}
    for scalar in pass_.scalars:
        reads.update(a.index for a in scalar.args if isinstance(a, Scalar) and a.index not in makes)
        makes.add(scalar.out.index)
    return reads, makes


def numbers_together(each: Iterable[tuple[Set[int], Set[int]]]) -> tuple[Set[int], Set[int]]:
    """The same of passes one after the other: what they read that none of them has made before, and
    what they make."""
    reads: set[int] = set()
    makes: set[int] = set()
    for own_reads, own_makes in each:
        reads |= own_reads - makes
        makes |= own_makes
    return reads, makes


def _candidates(outputs: Iterable[tuple[int, Sequence[Step]]]) -> list[Series]:
    """The outputs that are series, as often as there are such, but for those whose numbers others
    need."""
    found: list[Series] = []
    wanted: set[int] = set()
    for count, steps in outputs:
        reads, makes = numbers_together([numbers(s.action) for s in steps if isinstance(s.action, Pass)])
        wanted |= reads
        for step in steps:
            if isinstance(step.action, Opaque):
                wanted.update(a.index for a in step.action.scalars if isinstance(a, Scalar))
        series = series_of(steps, reads, makes)
        if series is not None and all(_plain(s.action) for s in steps if isinstance(s.action, Pass)):
            found += [series] * count
    return [s for s in found if wanted.isdisjoint(s.makes)]


def _plain(pass_: Pass) -> bool:
    """Whether nothing in a pass is for torch alone, which makes a tensor with all lanes
    (`runtime/portable/`)."""
    gathers = any(isinstance(o, Gather) for o in pass_.operands)
    return not gathers and not any(i.op == "installed" for i in pass_.code)


def _closed(steps: Sequence[Step]) -> bool:
    """Whether steps need no buffers but their own, and leave none."""
    made = [a.buffer for step in steps for a in step.allocate]
    needed = {h.buffer for s in steps if isinstance(s.action, Pass) for o in s.action.operands for h in held_in(o)}
    return needed <= set(made) and sorted(made) == sorted(b for step in steps for b in step.release)
