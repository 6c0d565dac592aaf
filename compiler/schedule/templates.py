"""Templates of steps: those of one output, made again for all others that are computed alike.

Of two such outputs the steps differ in what is read, where it goes and the keys of random masks.
All else (the code of a pass, its reductions, block and scratch) is one object for all of them, and
so are the numbers of scalars and held buffers: none of these outlives the steps of its output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..checkpoint.dtypes import SIZES
from ..graph.graph import EquivalenceClass, Output, StoredRange
from ..pack.slots import Origins, Slot
from ..plan.plan import (
    Copy,
    Extent,
    Held,
    Instruction,
    Load,
    Opaque,
    Operand,
    Pass,
    Step,
    Store,
    Stream,
    ToFile,
)

Action = Pass | Copy | Load | Opaque
Make = Callable[[list[Stream], Output, Slot], Action]
"""An output's own action, from its streams and the place of its bytes."""


class StepTemplate:
    """Makes the steps of any output of the equivalence class `shared`.

    `steps` are those of the output whose nodes are in the graph, with `streams`, the ranges that
    they read: by identity, as a step holds a stream or its extents. `like` are these steps.
    """

    def __init__(
        self, steps: Sequence[Step], shared: EquivalenceClass, streams: Mapping[StoredRange, Stream], origins: Origins
    ) -> None:
        self.like = tuple(steps)
        self._equivalence, self._where = shared, origins.where
        slots = {source: k for k, source in enumerate(shared.sources)}
        # place among the reads, model, bytes per element, and the stream of the model steps
        self._reads = [(slots[place], place.model, SIZES[place.dtype], s) for place, s in streams.items()]
        self._index = {id(stream.extents): k for k, stream in enumerate(streams.values())}
        self._steps = [(step, self._maker(step.action)) for step in steps]

    def steps(self, output: Output, slot: Slot) -> list[Step]:
        """The steps of an output whose bytes go to `slot`."""
        streams = []
        for place, model, size, like in self._reads:
            view = output.reads[place]
            file, start = self._where(model, view.stored, view.first, size)
            streams.append(Stream(like.dtype, like.numel, (Extent(file, start, like.numel * size),)))
        tensor = slot.tensor
        return [
            Step(make(streams, output, slot), s.allocate, s.release, tensor, s.host, s.device, s.reads, s.writes)
            for s, make in self._steps
        ]

    def files(self, output: Output) -> list[int]:
        """The input files that an output's steps read from."""
        views = output.reads
        return [self._where(m, views[k].stored, views[k].first, size)[0] for k, m, size, _ in self._reads]

    def _maker(self, action: Action) -> Make:
        if isinstance(action, Opaque):
            return lambda streams, output, slot: action  # noqa: ARG005
        if isinstance(action, Pass):
            return self._pass(action)
        extents = action.extents if isinstance(action, Copy) else action.source.extents
        index = self._index[id(extents)]
        if isinstance(action, Copy):
            return lambda streams, output, slot: Copy(streams[index].extents, slot.file, slot.start)  # noqa: ARG005
        buffer = action.buffer
        return lambda streams, output, slot: Load(streams[index], buffer)  # noqa: ARG005

    def _pass(self, action: Pass) -> Make:
        operands, stores = self._operands(action.operands), self._stores(action.stores)
        code = self._code(action.code)

        def make(streams: list[Stream], output: Output, slot: Slot) -> Pass:
            return Pass(
                action.numel,
                action.block,
                action.lanes,
                operands(streams),
                action.registers,
                action.masks,
                code(output),
                action.reductions,
                action.scalars,
                stores(slot),
                action.nbytes,
            )

        return make

    def _operands(self, given: tuple[Operand, ...]) -> Callable[[list[Stream]], tuple[Operand, ...]]:
        if not all(isinstance(o, Stream | Held) for o in given):
            raise AssertionError("what is put together of several tensors is like no other")
        which = [self._index[id(o.extents)] if isinstance(o, Stream) else None for o in given]
        if which == list(range(len(self._reads))):
            return lambda streams: tuple(streams)
        return lambda streams: tuple([o if k is None else streams[k] for k, o in zip(which, given, strict=True)])

    def _stores(self, given: tuple[Store, ...]) -> Callable[[Slot], tuple[Store, ...]]:
        if not any(isinstance(s, ToFile) for s in given):
            return lambda slot: given  # noqa: ARG005
        # an output has one value, and the pass that stores it stores nothing else
        (store,) = given
        assert isinstance(store, ToFile)
        value, dtype = store.value, store.dtype
        return lambda slot: (ToFile(value, dtype, slot.file, slot.start),)

    def _code(self, given: tuple[Instruction, ...]) -> Callable[[Output], tuple[Instruction, ...]]:
        keyed = [(k, i) for k, i in enumerate(given) if i.op == "bernoulli"]
        if not keyed:
            return lambda output: given  # noqa: ARG005
        key = self._equivalence.key

        def code(output: Output) -> tuple[Instruction, ...]:
            own = list(given)
            for k, i in keyed:
                own[k] = Instruction(i.op, i.out, i.args, (("key", key(int(dict(i.attributes)["key"]), output.name)),))
            return tuple(own)

        return code


def extents_of(action: Action) -> Iterator[Extent]:
    """The ranges of input files that an action reads."""
    if isinstance(action, Copy):
        yield from action.extents
    elif isinstance(action, Load):
        yield from action.source.extents
    elif isinstance(action, Pass):
        for operand in action.operands:
            streams = (operand,) if isinstance(operand, Stream) else getattr(operand, "sources", ())
            yield from (extent for stream in streams for extent in stream.extents)
