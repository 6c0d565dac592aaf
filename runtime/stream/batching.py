"""Outputs of a plan that nothing else depends on, by size: how the lanes best share them.

The fixed cost of a step (Python, locks, system calls) shows where tensors are small. So the
executor hands such outputs on in batches, with copies of small tensors between them; whoever runs a
batch reads, computes and writes adjacent ones in one go (`native/batch.py`).

Lanes that share the blocks of a tensor wait for each other at the end of every round over it. Where
rounds are short that shows, and a lane is given all of a tensor instead (`plan/concurrency.py`):
lanes then meet once, at the end of all such outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set

from ...compiler.plan.concurrency import ConcurrentOutputs, Series, numbers, numbers_together, series_of, side_by_side
from ...compiler.plan.plan import (
    CHUNK,
    Constant,
    Copy,
    Instruction,
    Opaque,
    Pass,
    Plan,
    Scalar,
    Step,
    Stream,
    ToFile,
)
from ...grammar.records import dataclass

SMALL = CHUNK
"""Elements of the largest tensors that are small: one chunk, so that their sums have one part and
equal elements are counted in one place for their thresholds. One by one, tensors of 1,024 elements
take four times the processor time (`benchmarks/batching.py`, where the figures of all these
thresholds come from)."""

SMALL_COPY = 1 << 17
"""Bytes of the largest copies that are batched with passes over small tensors. Where every other
small tensor is copied, batches that end at each copy take 1.3 times the processor time; room for
longer copies gains nothing."""

Able = Callable[[Sequence[Pass]], int | None]
"""How many bytes it takes to run the passes over one small tensor in a batch; None: they can't be
run so."""

Lone = Callable[[Pass], bool]
"""Whether a lane can run a pass by itself, while others run other passes."""


class BatchSignature:
    """What small outputs have in common that differ only in what they read, where they are written,
    and keys of masks.

    `passes` are those of one of them. `slots` gives each scalar and constant of theirs a place in a
    list of the output's own, `initial`; `reads` are the scalars that they need and do not make,
    `makes` those that they make. `nbytes` is the least scratch that the plan gives a pass of
    theirs, `needs` what they need in a batch.
    """

    __slots__ = ("initial", "makes", "nbytes", "needs", "passes", "reads", "slots")

    def __init__(self, passes: Sequence[Pass], kinds: Sequence[_PassKind], needs: int) -> None:
        self.passes, self.needs = tuple(passes), needs
        self.nbytes = min(p.nbytes for p in passes)
        self.reads, self.makes = numbers_together([(kind.reads, kind.makes) for kind in kinds])
        self.slots: dict[Scalar | Constant, int] = {}
        self.initial: list[float] = []
        for pass_ in passes:
            numbers = [a for i in pass_.code for a in i.args] + [a for r in pass_.reductions for a in (*r.args, r.out)]
            for argument in (*numbers, *(a for s in pass_.scalars for a in (*s.args, s.out))):
                if isinstance(argument, Scalar | Constant) and argument not in self.slots:
                    self.slots[argument] = len(self.initial)
                    self.initial.append(argument.value if isinstance(argument, Constant) else 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class SmallOutput:
    """The steps of one small output: passes over it, each of one block."""

    tensor: int
    passes: tuple[Pass, ...]
    signature: BatchSignature


@dataclass(frozen=True, slots=True)
class Alone:
    """A step by itself, shared by all lanes."""

    step: Step


@dataclass(frozen=True, slots=True)
class Copies:
    """Consecutive copies: they need no memory and no order."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Batchable:
    """Consecutive small outputs, to be run in batches and in any order; a step among them is a
    small copy."""

    members: tuple[SmallOutput | Step, ...]


Part = Alone | Copies | Batchable | ConcurrentOutputs

_Item = SmallOutput | Series | Step


def parts(plan: Plan, able: Able | None, lone: Lone | None = None) -> Iterator[Part]:
    """A plan's steps: in order, except that medium outputs that are made concurrently come last.

    With `able`, small outputs are batched; with `lone`, those of medium size are made concurrently,
    if they are many and the plan has the memory.
    """
    items: Sequence[_Item] = plan.steps
    if able is not None or lone is not None:
        items = _Finder(able, lone).items(plan.steps)
    series = [item for item in items if isinstance(item, Series)]
    groups = side_by_side(series, plan.lanes, plan.peak_host)
    concurrent = {id(member) for group in groups for member in group.members}
    row = _Row()
    for item in _in_order(items, concurrent):
        if not row.takes(item):
            yield from row.part()
            row = _Row()
        if not row.takes(item):
            assert isinstance(item, Step)
            yield Alone(item)
        else:
            row.add(item)
    yield from row.part()
    yield from groups


def _in_order(items: Sequence[_Item], concurrent: Set[int]) -> Iterator[SmallOutput | Step]:
    """The items but for the series in `concurrent`, by identity; the steps of others in their
    place."""
    for item in items:
        if not isinstance(item, Series):
            yield item
        elif id(item) not in concurrent:
            yield from item.steps


class _Row:
    """Items that are handed on as one part: copies of any size, or small outputs and small
    copies."""

    def __init__(self) -> None:
        self._items: list[SmallOutput | Step] = []
        self._computed = self._large = False
        self._needs, self._nbytes = 0, 1 << 62

    def takes(self, item: SmallOutput | Step) -> bool:
        """Whether an item can join those before it. All outputs together have the least memory that
        one of them may hold, so that must be enough for each."""
        if isinstance(item, SmallOutput):
            needs, nbytes = max(self._needs, item.signature.needs), min(self._nbytes, item.signature.nbytes)
            return not self._large and needs <= nbytes
        if not isinstance(item.action, Copy) or item.allocate or item.release:
            return False
        return not self._computed or item.writes <= min(SMALL_COPY, self._nbytes)

    def add(self, item: SmallOutput | Step) -> None:
        self._items.append(item)
        if isinstance(item, SmallOutput):
            self._computed = True
            self._needs, self._nbytes = max(self._needs, item.signature.needs), min(self._nbytes, item.signature.nbytes)
        else:
            self._large |= item.writes > SMALL_COPY
            self._needs = max(self._needs, item.writes)

    def part(self) -> Iterator[Part]:
        if self._computed:
            yield Batchable(tuple(self._items))
        elif self._items:
            yield Copies(tuple([i for i in self._items if isinstance(i, Step)]))


@dataclass(frozen=True, slots=True, eq=False)
class _PassKind:
    """What equivalent passes have in common: whether small outputs can be made of them, and whether
    a lane can run them by itself; the scalars that they read and have not made, and those that they
    make."""

    number: int
    small: bool
    lone: bool
    reads: Set[int]
    makes: Set[int]


class _Finder:
    """Finds the small outputs and series of a plan; equivalent passes are looked at once. Objects
    are compared by identity, as outputs of one equivalence class share them
    (`compiler/schedule/templates.py`)."""

    def __init__(self, able: Able | None, lone: Lone | None) -> None:
        self._able, self._lone = able, lone
        self._kinds: dict[object, _PassKind] = {}
        self._codes: dict[int, int] = {}
        self._classes: dict[object, int] = {}
        self._signatures: dict[tuple[int, ...], BatchSignature | None] = {}

    def items(self, steps: Sequence[Step]) -> list[_Item]:
        """The steps in order, with small outputs and series in place of those that make one."""
        found = self._candidates(steps)
        wanted: set[int] = set()
        signatures: set[BatchSignature] = set()
        for item in found:
            if isinstance(item, SmallOutput):
                if item.signature not in signatures:
                    signatures.add(item.signature)
                    wanted |= item.signature.reads
            elif isinstance(item, Step) and isinstance(item.action, Pass):
                wanted |= self._kind(item.action).reads
            elif isinstance(item, Step) and isinstance(item.action, Opaque):
                wanted.update(a.index for a in item.action.scalars if isinstance(a, Scalar))
        bound = {signature for signature in signatures if signature.reads or not wanted.isdisjoint(signature.makes)}
        steps_of = {id(step.action): step for step in steps} if bound else {}
        out: list[_Item] = []
        for item in found:
            if isinstance(item, SmallOutput) and item.signature in bound:
                out.extend(steps_of[id(pass_)] for pass_ in item.passes)
            elif isinstance(item, Series) and not wanted.isdisjoint(item.makes):
                out.extend(item.steps)
            else:
                out.append(item)
        return out

    def _candidates(self, steps: Sequence[Step]) -> list[_Item]:
        """The steps with small outputs and series in place of those of one output, whatever these
        read."""
        found: list[_Item] = []
        run: list[Step] = []
        kinds: list[_PassKind] = []
        for step in steps:
            action = step.action
            kind = self._kind(action) if isinstance(action, Pass) else None
            fits = kind is not None and (kind.small or kind.lone)
            if run and not (fits and step.tensor == run[0].tensor):
                found.extend(run)
                run, kinds = [], []
            if not fits or kind is None or not isinstance(action, Pass):
                found.append(step)
                continue
            run.append(step)
            kinds.append(kind)
            if any(isinstance(s, ToFile) for s in action.stores):
                made = self._small_output(run, kinds) or self._series(run, kinds)
                found.extend([made] if made is not None else run)
                run, kinds = [], []
        return [*found, *run]

    def _small_output(self, steps: Sequence[Step], kinds: Sequence[_PassKind]) -> SmallOutput | None:
        """The steps as a small output; None where they can't be run as one in the memory that each
        of them has."""
        if self._able is None or not all(kind.small for kind in kinds) or any(s.allocate or s.release for s in steps):
            return None
        passes = tuple([s.action for s in steps if isinstance(s.action, Pass)])
        key = tuple([kind.number for kind in kinds])
        if key not in self._signatures:
            needs = self._able(passes)
            fits = needs is not None and needs <= min(p.nbytes for p in passes)
            self._signatures[key] = BatchSignature(passes, kinds, needs) if fits and needs is not None else None
        signature = self._signatures[key]
        return SmallOutput(steps[0].tensor, passes, signature) if signature is not None else None

    def _series(self, steps: Sequence[Step], kinds: Sequence[_PassKind]) -> Series | None:
        """The steps as a series; None where they can't be one, or a lane can't run them by
        itself."""
        if not all(kind.lone for kind in kinds):
            return None
        return series_of(steps, *numbers_together([(kind.reads, kind.makes) for kind in kinds]))

    def _kind(self, pass_: Pass) -> _PassKind:
        key = (
            pass_.numel,
            pass_.block,
            pass_.nbytes,
            id(pass_.reductions),
            id(pass_.scalars),
            self._code(pass_.code),
            tuple([o.dtype if isinstance(o, Stream) else None for o in pass_.operands]),
            tuple([(s.dtype, s.value.index) if isinstance(s, ToFile) else None for s in pass_.stores]),
        )
        kind = self._kinds.get(key)
        if kind is None:
            small, lone = self._small(pass_), self._lone is not None and self._lone(pass_)
            kind = self._kinds[key] = _PassKind(len(self._kinds), small, lone, *numbers(pass_))
        return kind

    def _code(self, code: tuple[Instruction, ...]) -> int:
        """A number for the code, the same for all code that differs only in keys of masks."""
        number = self._codes.get(id(code))
        if number is None:
            key = tuple([(id(i.out), id(i.args)) if i.op == "bernoulli" else id(i) for i in code])
            number = self._codes[id(code)] = self._classes.setdefault(key, len(self._classes))
        return number

    def _small(self, pass_: Pass) -> bool:
        return (
            0 < pass_.numel <= min(SMALL, pass_.block)
            and all(isinstance(o, Stream) for o in pass_.operands)
            and all(isinstance(s, ToFile) for s in pass_.stores)
        )
