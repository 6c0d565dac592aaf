"""Small tensors, found in a plan: outputs that can be made many at a time, as nothing else has to do with their steps.

What a step costs beside its numbers (Python, locks, calls of the system) shows where tensors are small. So the
executor hands such outputs on together, and copies of small tensors between them; whoever runs them reads, computes and
writes those that lie side by side in one go (`native/batch.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set

from ..compiler.plan import CHUNK, Constant, Copy, Instruction, Opaque, Pass, Plan, Scalar, Step, Stream, ToFile
from ..grammar.records import dataclass

SMALL = CHUNK
"""Elements of the largest tensors that are small: those of a chunk, so that their sums have one part and their
thresholds one place where equals are counted."""

SMALL_COPY = 1 << 17
"""Bytes of the largest copies that go along with passes over small tensors."""

Able = Callable[[Sequence[Pass]], int | None]
"""How many bytes whoever runs small tensors together needs for the passes over one of them; None: they can't be run
so."""


class Shape:
    """What units have in common whose steps are alike but for what they read, where that goes and the keys of masks.

    `passes` are those of one of them. `slots` gives each scalar and constant of theirs a place in a list of a unit's
    own, `initial`; `reads` are the scalars that they need and do not make, `makes` those that they make. `nbytes` is
    the least scratch that a pass of theirs has by the plan, `needs` what they need when they are run together.
    """

    __slots__ = ("initial", "makes", "nbytes", "needs", "passes", "reads", "slots")

    def __init__(self, passes: Sequence[Pass], kinds: Sequence[_Kind], needs: int) -> None:
        self.passes, self.needs = tuple(passes), needs
        self.nbytes = min(p.nbytes for p in passes)
        self.reads, self.makes = _together(kinds)
        self.slots: dict[Scalar | Constant, int] = {}
        self.initial: list[float] = []
        for pass_ in passes:
            numbers = [a for i in pass_.code for a in i.args] + [a for r in pass_.reductions for a in (*r.args, r.out)]
            for argument in (*numbers, *(a for s in pass_.scalars for a in (*s.args, s.out))):
                if isinstance(argument, Scalar | Constant) and argument not in self.slots:
                    self.slots[argument] = len(self.initial)
                    self.initial.append(argument.value if isinstance(argument, Constant) else 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """The steps of one small output: passes over it, each of one block. `host` is the least that a step may hold."""

    tensor: int
    passes: tuple[Pass, ...]
    shape: Shape
    host: int


@dataclass(frozen=True, slots=True)
class Alone:
    """A step by itself."""

    step: Step


@dataclass(frozen=True, slots=True)
class Copies:
    """Copies in a row: they need no memory and no order."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Together:
    """Units in a row, in any order and side by side; a step among them is a small copy."""

    members: tuple[Unit | Step, ...]


Part = Alone | Copies | Together


def parts(plan: Plan, able: Able | None) -> Iterator[Part]:
    """A plan's steps, in order; with `able`, small outputs are put together."""
    row = _Row()
    for item in _Finder(able).items(plan.steps) if able is not None else plan.steps:
        if not row.takes(item):
            yield from row.part()
            row = _Row()
        if not row.takes(item):
            assert isinstance(item, Step)
            yield Alone(item)
        else:
            row.add(item)
    yield from row.part()


class _Row:
    """Items that are handed on as one part: copies of any size, or units and small copies."""

    def __init__(self) -> None:
        self._items: list[Unit | Step] = []
        self._units = self._large = False
        self._needs, self._nbytes = 0, 1 << 62

    def takes(self, item: Unit | Step) -> bool:
        """Whether an item goes with those before it. What all units have is the least that one of them may hold, so
        that is to be enough for each."""
        if isinstance(item, Unit):
            needs, nbytes = max(self._needs, item.shape.needs), min(self._nbytes, item.shape.nbytes)
            return not self._large and needs <= nbytes
        if not isinstance(item.action, Copy) or item.allocate or item.release:
            return False
        return not self._units or item.writes <= min(SMALL_COPY, self._nbytes)

    def add(self, item: Unit | Step) -> None:
        self._items.append(item)
        if isinstance(item, Unit):
            self._units = True
            self._needs, self._nbytes = max(self._needs, item.shape.needs), min(self._nbytes, item.shape.nbytes)
        else:
            self._large |= item.writes > SMALL_COPY
            self._needs = max(self._needs, item.writes)

    def part(self) -> Iterator[Part]:
        if self._units:
            yield Together(tuple(self._items))
        elif self._items:
            yield Copies(tuple([i for i in self._items if isinstance(i, Step)]))


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """What is the same of passes that are alike: whether small outputs can be made of them, the scalars that they read
    and have not made, and those that they make."""

    number: int
    fits: bool
    reads: Set[int]
    makes: Set[int]


def _together(kinds: Sequence[_Kind]) -> tuple[Set[int], Set[int]]:
    """What passes one after the other read that none of them has made before, and what they make."""
    reads: set[int] = set()
    makes: set[int] = set()
    for kind in kinds:
        reads |= kind.reads - makes
        makes |= kind.makes
    return reads, makes


class _Finder:
    """Finds the units of a plan; what is alike is looked at once. Objects are told apart by identity, as those that
    outputs which are computed alike have in common are the same ones (`compiler/stamps.py`)."""

    def __init__(self, able: Able) -> None:
        self._able = able
        self._kinds: dict[object, _Kind] = {}
        self._codes: dict[int, int] = {}
        self._alike: dict[object, int] = {}
        self._shapes: dict[tuple[int, ...], Shape | None] = {}

    def items(self, steps: Sequence[Step]) -> list[Unit | Step]:
        """The steps in order, with units in place of those that make one."""
        found = self._candidates(steps)
        wanted: set[int] = set()
        seen: set[Shape] = set()
        for item in found:
            if isinstance(item, Unit):
                if item.shape not in seen:
                    seen.add(item.shape)
                    wanted |= item.shape.reads
            elif isinstance(item.action, Pass):
                wanted |= self._kind(item.action).reads
            elif isinstance(item.action, Opaque):
                wanted.update(a.index for a in item.action.scalars if isinstance(a, Scalar))
        bound = {shape for shape in seen if shape.reads or not wanted.isdisjoint(shape.makes)}
        if not bound:
            return found
        steps_of = {id(step.action): step for step in steps}
        out: list[Unit | Step] = []
        for item in found:
            if isinstance(item, Unit) and item.shape in bound:
                out.extend(steps_of[id(pass_)] for pass_ in item.passes)
            else:
                out.append(item)
        return out

    def _candidates(self, steps: Sequence[Step]) -> list[Unit | Step]:
        """The steps with units in place of those of a small output, whatever these read."""
        found: list[Unit | Step] = []
        run: list[Step] = []
        kinds: list[_Kind] = []
        for step in steps:
            action = step.action
            kind = self._kind(action) if isinstance(action, Pass) else None
            fits = kind is not None and kind.fits and not (step.allocate or step.release)
            if run and not (fits and step.tensor == run[0].tensor):
                found.extend(run)
                run, kinds = [], []
            if not fits or kind is None or not isinstance(action, Pass):
                found.append(step)
                continue
            run.append(step)
            kinds.append(kind)
            if action.stores:
                unit = self._unit(run, kinds)
                found.extend([unit] if unit is not None else run)
                run, kinds = [], []
        return [*found, *run]

    def _unit(self, steps: Sequence[Step], kinds: Sequence[_Kind]) -> Unit | None:
        """The steps as a unit; None where they can't be run as one in the memory that each of them has."""
        passes = tuple([s.action for s in steps if isinstance(s.action, Pass)])
        key = tuple([kind.number for kind in kinds])
        if key not in self._shapes:
            needs = self._able(passes)
            fits = needs is not None and needs <= min(p.nbytes for p in passes)
            self._shapes[key] = Shape(passes, kinds, needs) if fits and needs is not None else None
        shape = self._shapes[key]
        return Unit(steps[0].tensor, passes, shape, min([s.host for s in steps])) if shape is not None else None

    def _kind(self, pass_: Pass) -> _Kind:
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
            kind = self._kinds[key] = _Kind(len(self._kinds), self._fits(pass_), *_scalars(pass_))
        return kind

    def _code(self, code: tuple[Instruction, ...]) -> int:
        """A number for code: one for all that differs in keys of masks alone."""
        number = self._codes.get(id(code))
        if number is None:
            key = tuple([(id(i.out), id(i.args)) if i.op == "bernoulli" else id(i) for i in code])
            number = self._codes[id(code)] = self._alike.setdefault(key, len(self._alike))
        return number

    def _fits(self, pass_: Pass) -> bool:
        return (
            0 < pass_.numel <= min(SMALL, pass_.block)
            and all(isinstance(o, Stream) for o in pass_.operands)
            and all(isinstance(s, ToFile) for s in pass_.stores)
        )


def _scalars(pass_: Pass) -> tuple[Set[int], Set[int]]:
    """The scalars that a pass reads and has not made itself, and those that it makes."""
    given = [a for i in pass_.code for a in i.args] + [a for r in pass_.reductions for a in r.args]
    reads = {a.index for a in given if isinstance(a, Scalar)}
    makes = {r.out.index for r in pass_.reductions}
    for scalar in pass_.scalars:
        reads.update(a.index for a in scalar.args if isinstance(a, Scalar) and a.index not in makes)
        makes.add(scalar.out.index)
    return reads, makes
