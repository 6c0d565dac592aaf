"""The steps that make one value of the output.

The reductions that it needs, level by level (a reduction of a reduction's user is one higher), one
streaming pass per level; then a pass that stores it. On a device, tensors that several passes read
are brought over once and freed after the last of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...grammar.records import dataclass
from ..checkpoint.dtypes import BITS, SIZES, held_bytes
from ..graph.graph import Node, Output, StoredRange, below
from ..ops.shapes import elements
from ..ops.table import OPS
from ..pack.slots import Origins, Slot
from ..plan.costs import costed, with_liveness
from ..plan.machine import Machine, block_size, whole_rows
from ..plan.plan import (
    CHUNK,
    Allocation,
    Constant,
    Copy,
    Gather,
    Held,
    Load,
    Opaque,
    Operand,
    Pass,
    Product,
    Reduction,
    Run,
    Scalar,
    ScalarCode,
    Step,
    Store,
    Stream,
    ToBuffer,
    ToFile,
)
from ..plan.scratch import LOAD_STAGING
from .barriers import COSTLY, blocks_below, connected, costly_masks, is_barrier
from .registers import CodeBuilder, plain_attributes

MASKS = 1 << 26
"""Bytes of masks that are held for one value at most: those of two models for an embedding of 262
million elements."""


def _affordable(masks: Sequence[Node]) -> list[Node]:
    """The masks, if they are not too many bytes to hold, and no two blocks have a byte of one in
    common."""
    rows = [int(n.attribute("row")) for m in masks for n in blocks_below(m).values() if n.op in COSTLY]
    fits = sum(held_bytes(BITS, elements(m.shape)) for m in masks) <= MASKS
    return list(masks) if fits and all(row % 8 == 0 for row in rows) else []


class Numbering:
    """Scalars and held buffers, each with a number that no other of the schedule has."""

    def __init__(self) -> None:
        self.scalars = self.buffers = 0

    def scalar(self) -> Scalar:
        self.scalars += 1
        return Scalar(self.scalars - 1)

    def buffer(self, dtype: str, numel: int) -> Held:
        self.buffers += 1
        return Held(dtype, numel, self.buffers - 1)


@dataclass(frozen=True, slots=True)
class Setting:
    """What the steps of all values of a schedule are made by.

    `levels` are the barriers below each node; `slots` says where outputs lie, `origins` where what
    is read does.
    """

    levels: Mapping[int, int]
    slots: Mapping[str, Slot]
    origins: Origins
    machine: Machine
    numbering: Numbering


class ValueSteps:
    """The steps of outputs of one value. `scalars` are the numbers known by then, and gain those
    that these make.

    `steps` are in order, with the bytes that are live at each; `streams` are the ranges that they
    read, the same object wherever one is read.
    """

    def __init__(self, setting: Setting, outputs: Sequence[Output], scalars: dict[int, Scalar]) -> None:
        self._setting, self._machine, self._scalars = setting, setting.machine, scalars
        self._tensor = setting.slots[outputs[0].name].tensor
        self._held: dict[int, Held] = {}
        self._costly: list[Node] = []
        self._factors: dict[int, Held] = {}
        self._made: list[Step] = []
        self._needed = below([outputs[0].node])
        self.streams: dict[StoredRange, Stream] = {}
        self._make(outputs)
        self.steps = tuple(with_liveness(self._made, self._machine.device))

    def _make(self, outputs: Sequence[Output]) -> None:
        node = outputs[0].node
        if node.op == "source" and all(o.dtype == node.attribute("range").dtype for o in outputs):
            self._made.extend(self._copy(node, self._setting.slots[output.name]) for output in outputs)
            return
        barriers = [n for n in self._needed if is_barrier(n) and n.id not in self._scalars]
        may_hold = self._machine.device == "cpu" and self._machine.hold and elements(node.shape) > CHUNK
        if may_hold and any(n.op in COSTLY for n in self._needed):
            self._costly = _affordable(costly_masks(node, barriers))
        if any(n.op != "low_rank" for n in barriers):
            self._loads(node)
        self._numbers()
        for level in range(1, self._setting.levels[node.id] + 1):
            found = [n for n in barriers if self._setting.levels[n.id] == level]
            self._keep_factors([n for n in found if n.op == "low_rank"])
            found = [n for n in found if n.op != "low_rank"]
            for together in connected([n for n in found if OPS[n.op].kind == "reduction"]):
                self._pass(reductions=together, kept=self._masks_of(together))
            for opaque in (n for n in found if OPS[n.op].kind == "opaque"):
                self._opaque(opaque)
        release = tuple(h.buffer for h in (*self._held.values(), *self._factors.values()))
        self._pass(outputs=outputs, release=release)

    def _copy(self, node: Node, slot: Slot) -> Step:
        stream = self._stream(node)
        nbytes = stream.numel * SIZES[stream.dtype]
        return Step(Copy(stream.extents, slot.file, slot.start), (), (), slot.tensor, 0, 0, nbytes, nbytes)

    # --- whole tensors in memory

    def _loads(self, root: Node) -> None:
        """On a device, sources that several passes read are loaded once."""
        if self._machine.device == "cpu" or not self._machine.hold:
            return
        own = blocks_below(root)
        for node in [n for n in self._needed if n.op == "source" and n.id in own]:
            stream = self._stream(node)
            nbytes = stream.numel * SIZES[stream.dtype]
            self._held[node.id] = held = self._setting.numbering.buffer(stream.dtype, stream.numel)
            allocation = Allocation(held.buffer, stream.dtype, stream.numel, nbytes)
            staging = min(nbytes, LOAD_STAGING)
            action = Load(stream, held.buffer)
            self._made.append(Step(action, (allocation,), (), self._tensor, staging, 0, nbytes, 0))

    def _opaque(self, node: Node) -> None:
        """An operation on whole tensors: its inputs are computed into buffers, which die with
        it."""
        inputs = [i for i in node.inputs if i.shape is not None]
        known = {i.id: held for i in inputs if (held := self._kept(i)) and held.dtype == self._machine.compute}
        fresh = [i for i in dict.fromkeys(inputs) if i.id not in known]
        buffers = known | self._keep(fresh)
        result = self._setting.numbering.buffer(self._machine.compute, elements(node.shape))
        self._held[node.id] = result
        width, row, shapes = SIZES[self._machine.compute], OPS[node.op], [i.shape or () for i in inputs]
        words = row.words(shapes) if row.words else 0
        # an operation of an installed package says itself what it needs for every element
        each = row.workspace or int(dict(node.attributes).get("workspace", 0))
        workspace = each * sum(map(elements, shapes)) + row.fixed + words * width
        action = Opaque(
            node.op,
            tuple(buffers[i.id] for i in inputs),
            tuple(shapes),
            tuple(self._number(i) for i in node.inputs if i.shape is None),
            result.buffer,
            node.shape or (),
            plain_attributes(node),
            workspace,
        )
        allocation = Allocation(result.buffer, self._machine.compute, result.numel, result.numel * width)
        release = tuple(buffers[i.id].buffer for i in fresh)
        host = workspace if self._machine.device == "cpu" else 0
        self._made.append(Step(action, (allocation,), release, self._tensor, host, workspace, 0, 0))

    def _keep_factors(self, products: list[Node]) -> None:
        """The factors of products lie whole in buffers until the value is stored: they are small,
        and every block needs them."""
        factors = dict.fromkeys(i for node in products for i in node.inputs)
        self._factors |= self._keep([i for i in factors if i.id not in self._factors])

    def _masks_of(self, reductions: Sequence[Node]) -> list[tuple[Node, Held]]:
        """Masks that the pass for these reductions makes, and that are kept for later ones; with
        buffers for them."""
        if not self._costly:
            return []
        made = {k for n in reductions for i in n.inputs if i.shape is not None for k in blocks_below(i)}
        found = [m for m in self._costly if m.id in made and m.id not in self._held]
        return [(m, self._setting.numbering.buffer(BITS, elements(m.shape))) for m in found]

    def _keep(self, nodes: list[Node]) -> dict[int, Held]:
        """Values computed whole into new buffers, those of one size in one pass."""
        buffers: dict[int, Held] = {}
        for size in dict.fromkeys(elements(i.shape) for i in nodes):
            same = [i for i in nodes if elements(i.shape) == size]
            for i in same:
                buffers[i.id] = self._setting.numbering.buffer(self._machine.compute, size)
            self._pass(kept=[(i, buffers[i.id]) for i in same])
        return buffers

    def _kept(self, node: Node) -> Held | None:
        """Where a value lies whole in memory, if it does."""
        if node.op != "part":
            return self._held.get(node.id)
        packed = self._held[node.inputs[0].id]
        return Held(packed.dtype, elements(node.shape), packed.buffer, packed.first + int(node.attribute("first")))

    # --- reading

    def _stream(self, node: Node) -> Stream:
        """What a source reads, the same object in all steps of a group."""
        place = node.attribute("range")
        stream = self.streams.get(place)
        if stream is None or stream.numel != elements(node.shape):
            stream = self.streams[place] = self._setting.origins.stream(place, elements(node.shape))
        return stream

    def _operand(self, node: Node) -> Operand:
        held = self._kept(node)
        if held is not None:
            return held
        if node.op == "source":
            return self._stream(node)
        assert node.shape is not None
        if node.op == "low_rank":
            left, right = (self._factors[i.id] for i in node.inputs)
            inner = elements(node.inputs[1].shape[:1] if node.inputs[1].shape else ())
            width = elements(node.shape[1:])
            return Product(elements(node.shape), width, inner, left, right, bool(node.attribute("turned")))
        rows = tuple(Run(count, terms) for count, terms in node.attribute("runs"))
        width = int(dict(node.attributes).get("width", elements(node.shape[1:])))
        return Gather(elements(node.shape), width, tuple(self._stream(i) for i in node.inputs), rows)

    # --- one pass

    def _pass(
        self,
        *,
        reductions: Sequence[Node] = (),
        outputs: Sequence[Output] = (),
        kept: Sequence[tuple[Node, Held]] = (),
        release: tuple[int, ...] = (),
    ) -> None:
        """One pass that makes reductions, output tensors or held buffers, all over tensors of one
        size."""
        blocks = [i for n in reductions for i in n.inputs if i.shape is not None]
        roots = [*blocks, *(o.node for o in outputs), *(node for node, _ in kept)]
        code = CodeBuilder(roots, self._held, self._operand, self._number)
        for node in reductions:
            self._scalars[node.id] = self._setting.numbering.scalar()
        reduce = tuple(
            Reduction(n.op, self._scalars[n.id], tuple(code.argument(i) for i in n.inputs), plain_attributes(n))
            for n in reductions
        )
        stores: list[Store] = []
        for output in outputs:
            slot = self._setting.slots[output.name]
            stores.append(ToFile(code.register(output.node), output.dtype, slot.file, slot.start))
        stores.extend(ToBuffer(code.block(node), held.buffer) for node, held in kept)
        self._held |= {node.id: held for node, held in kept if held.dtype == BITS}
        scalars = self._scalar_code() if reductions else ()
        numel = elements(roots[0].shape)
        operands, instructions = tuple(code.operands), tuple(code.code)
        action = Pass(
            numel,
            whole_rows(block_size(numel, self._machine), numel, instructions, operands, bool(reductions)),
            self._machine.lanes,
            operands,
            code.registers,
            code.masks,
            instructions,
            reduce,
            scalars,
            tuple(stores),
            nbytes=0,
        )
        allocate = tuple(Allocation(h.buffer, h.dtype, h.numel, held_bytes(h.dtype, h.numel)) for _, h in kept)
        step = Step(action, allocate, release, self._tensor, 0, 0, 0, 0)
        self._made.append(costed(step, action, compute=self._machine.compute, device=self._machine.device))

    def _scalar_code(self) -> tuple[ScalarCode, ...]:
        """Everything on numbers that can be computed by now and was not before."""
        out = []
        for node in self._needed:
            if node.shape is not None or node.op == "const" or node.id in self._scalars:
                continue
            if OPS[node.op].kind not in ("elementwise", "scalar"):
                continue
            if all(i.op == "const" or i.id in self._scalars for i in node.inputs):
                args = tuple(self._number(i) for i in node.inputs)
                self._scalars[node.id] = self._setting.numbering.scalar()
                out.append(ScalarCode(node.op, self._scalars[node.id], args))
        return tuple(out)

    def _numbers(self) -> None:
        """Numbers that follow from reductions made for earlier outputs: a pass over nothing, which
        only computes them."""
        scalars = self._scalar_code()
        if scalars:
            action = Pass(0, CHUNK, self._machine.lanes, (), 0, 0, (), (), scalars, (), 0)
            self._made.append(Step(action, (), (), self._tensor, 0, 0, 0, 0))

    def _number(self, node: Node) -> Scalar | Constant:
        return Constant(node.attribute("value")) if node.op == "const" else self._scalars[node.id]
