"""Graph to steps: what is computed in which pass over which bytes, and how much memory that takes.

For each distinct output value: the reductions that it needs, level by level (a reduction of a reduction's user is a
level higher), one streaming pass a level; then a pass that stores it. Numbers that reductions give are kept for good
(they are a few bytes), so a value needed by two outputs is reduced once. On a device, tensors that several passes
read are brought over once and freed after the last of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .dtypes import SIZES
from .graph import Graph, Node, Output
from .models import Model
from .ops import OPS
from .plan import (
    CHUNK,
    LOAD_STAGING,
    PRODUCT_ROWS,
    Allocation,
    Argument,
    Constant,
    Copy,
    Extent,
    Gather,
    Held,
    Instruction,
    Load,
    Mask,
    Opaque,
    Operand,
    Pass,
    Product,
    Reduction,
    Register,
    Run,
    Scalar,
    ScalarCode,
    Step,
    Store,
    Stream,
    ToBuffer,
    ToFile,
    scratch_layout,
)
from .shapes import elements


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an output tensor's bytes go: output file and byte offset."""

    file: int
    start: int
    tensor: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What the schedule is made for.

    `device` is its name, `lanes` how many blocks are in flight at once, `block` their largest size in elements.
    `hold`: an accelerator keeps what several passes read, instead of having it sent again.
    """

    device: str
    lanes: int
    block: int
    compute: str
    hold: bool = True


def schedule(
    graph: Graph,
    slots: Mapping[str, Slot],
    models: Sequence[Model],
    files: Mapping[tuple[int, int], int],
    machine: Machine,
) -> tuple[list[Step], int]:
    """Steps in order, and the number of scalars.

    `slots` says where each output lies; `files` maps (model number, its file) to the plan's input files.
    """
    by_number = {m.number: m for m in models}
    return _Scheduler(graph, slots, by_number, files, machine).run()


class _Scheduler:
    def __init__(
        self,
        graph: Graph,
        slots: Mapping[str, Slot],
        models: Mapping[int, Model],
        files: Mapping[tuple[int, int], int],
        machine: Machine,
    ) -> None:
        self.graph, self.slots, self.models, self.files, self.machine = graph, slots, models, files, machine
        self.scalars: dict[int, Scalar] = {}
        self.held: dict[int, Held] = {}
        self.factors: dict[int, Held] = {}
        self.buffers = 0
        self.steps: list[Step] = []
        self.level: dict[int, int] = {}

    def run(self) -> tuple[list[Step], int]:
        self._levels()
        groups: dict[int, list[Output]] = {}
        for output in self.graph.outputs:
            groups.setdefault(output.node.id, []).append(output)
        for outputs in sorted(groups.values(), key=self._order):
            self._group(outputs)
        return self.steps, len(self.scalars)

    def _levels(self) -> None:
        """How many barriers lie below each node."""
        for node in self.graph.nodes:
            below = max((self.level[i.id] for i in node.inputs), default=0)
            self.level[node.id] = below + _is_barrier(node)

    def _order(self, outputs: list[Output]) -> tuple[int, int]:
        """By the place of the output in its files: inputs are mostly laid out alike, so reads follow their order
        too."""
        return min((self.slots[o.name].file, self.slots[o.name].start) for o in outputs)

    # --- one output value

    def _group(self, outputs: list[Output]) -> None:
        node = outputs[0].node
        if node.op == "source" and all(o.dtype == node.attribute("range").dtype for o in outputs):
            for output in outputs:
                self._copy(node, output)
            return
        needed = self._below(node)
        tensor = self.slots[outputs[0].name].tensor
        barriers = [n for n in needed if _is_barrier(n) and n.id not in self.scalars]
        if any(n.op != "low_rank" for n in barriers):
            self._loads(node, needed, tensor)
        self._numbers(needed, tensor)
        for level in range(1, self.level[node.id] + 1):
            found = [n for n in barriers if self.level[n.id] == level]
            products = [n for n in found if n.op == "low_rank"]
            self._factors(products, tensor, needed)
            found = [n for n in found if n.op != "low_rank"]
            reductions = [n for n in found if OPS[n.op].kind == "reduction"]
            for together in _connected(reductions):
                self._pass(tensor, reductions=together, needed=needed)
            for opaque in (n for n in found if OPS[n.op].kind == "opaque"):
                self._opaque(opaque, tensor, needed)
        release = tuple(h.buffer for h in (*self.held.values(), *self.factors.values()))
        self._pass(tensor, outputs=outputs, needed=needed, release=release)
        self.held.clear()
        self.factors.clear()

    def _numbers(self, needed: list[Node], tensor: int) -> None:
        """Numbers that follow from reductions made for earlier outputs: a pass over nothing, which only computes
        them."""
        scalars = self._scalar_code(needed)
        if scalars:
            action = Pass(0, CHUNK, self.machine.lanes, (), 0, 0, (), (), scalars, (), 0)
            self._add(action, (), (), tensor, 0, 0, 0, 0)

    def _opaque(self, node: Node, tensor: int, needed: list[Node]) -> None:
        """An operation on whole tensors: its inputs are computed into buffers, which die with it."""
        inputs = [i for i in node.inputs if i.shape is not None]
        known = {i.id: held for i in inputs if (held := self._kept(i)) and held.dtype == self.machine.compute}
        fresh = [i for i in dict.fromkeys(inputs) if i.id not in known]
        buffers = known | self._keep(fresh, tensor, needed)
        result = self._buffer(self.machine.compute, elements(node.shape))
        self.held[node.id] = result
        width, row, shapes = SIZES[self.machine.compute], OPS[node.op], [i.shape or () for i in inputs]
        words = row.words(shapes) if row.words else 0
        # an operation of an installed package says itself what it needs for every element
        each = row.workspace or int(dict(node.attributes).get("workspace", 0))
        workspace = each * sum(map(elements, shapes)) + row.fixed + words * width
        action = Opaque(
            node.op,
            tuple(buffers[i.id] for i in inputs),
            tuple(shapes),
            tuple(self.number(i) for i in node.inputs if i.shape is None),
            result.buffer,
            node.shape or (),
            _plain(node),
            workspace,
        )
        allocation = Allocation(result.buffer, self.machine.compute, result.numel, result.numel * width)
        release = tuple(buffers[i.id].buffer for i in fresh)
        host = workspace if self.machine.device == "cpu" else 0
        self._add(action, (allocation,), release, tensor, host, workspace, 0, 0)

    def _factors(self, products: list[Node], tensor: int, needed: list[Node]) -> None:
        """The factors of products lie whole in buffers until the value is stored: they are small, and every block
        needs them."""
        factors = dict.fromkeys(i for node in products for i in node.inputs)
        self.factors |= self._keep([i for i in factors if i.id not in self.factors], tensor, needed)

    def _keep(self, nodes: list[Node], tensor: int, needed: list[Node]) -> dict[int, Held]:
        """Values computed whole into new buffers, those of one size in one pass."""
        buffers: dict[int, Held] = {}
        for size in dict.fromkeys(elements(i.shape) for i in nodes):
            same = [i for i in nodes if elements(i.shape) == size]
            for i in same:
                buffers[i.id] = self._buffer(self.machine.compute, size)
            self._pass(tensor, needed=needed, kept=[(i, buffers[i.id]) for i in same])
        return buffers

    def _kept(self, node: Node) -> Held | None:
        """Where a value lies whole in memory, if it does."""
        if node.op != "part":
            return self.held.get(node.id)
        packed = self.held[node.inputs[0].id]
        return Held(packed.dtype, elements(node.shape), packed.buffer, packed.first + int(node.attribute("first")))

    def _buffer(self, dtype: str, numel: int) -> Held:
        self.buffers += 1
        return Held(dtype, numel, self.buffers - 1)

    def _below(self, node: Node) -> list[Node]:
        """The nodes that a value needs, in topological order."""
        needed = {node.id: node}
        todo = [node]
        while todo:
            for source in todo.pop().inputs:
                if source.id not in needed:
                    needed[source.id] = source
                    todo.append(source)
        return [needed[k] for k in sorted(needed)]

    def _copy(self, node: Node, output: Output) -> None:
        slot = self.slots[output.name]
        stream = self._stream(node)
        nbytes = stream.numel * SIZES[stream.dtype]
        step = Step(Copy(stream.extents, slot.file, slot.start), (), (), slot.tensor, 0, 0, nbytes, nbytes)
        self.steps.append(step)

    # --- reading

    def _stream(self, node: Node) -> Stream:
        place = node.attribute("range")
        model = self.models[place.model]
        stored = model.checkpoint.tensors[place.stored]
        size = SIZES[place.dtype]
        numel = elements(node.shape)
        file = self.files[place.model, stored.file]
        return Stream(place.dtype, numel, (Extent(file, stored.start + place.first * size, numel * size),))

    def _operand(self, node: Node) -> Operand:
        held = self._kept(node)
        if held is not None:
            return held
        if node.op == "source":
            return self._stream(node)
        assert node.shape is not None
        if node.op == "low_rank":
            left, right = (self.factors[i.id] for i in node.inputs)
            inner = elements(node.inputs[1].shape[:1] if node.inputs[1].shape else ())
            width = elements(node.shape[1:])
            return Product(elements(node.shape), width, inner, left, right, bool(node.attribute("turned")))
        rows = tuple(Run(count, terms) for count, terms in node.attribute("runs"))
        width = int(dict(node.attributes).get("width", elements(node.shape[1:])))
        return Gather(elements(node.shape), width, tuple(self._stream(i) for i in node.inputs), rows)

    def _loads(self, root: Node, needed: list[Node], tensor: int) -> None:
        """On a device, sources that several passes read are loaded once."""
        if self.machine.device == "cpu" or not self.machine.hold:
            return
        own = _blocks_below(root)
        for node in [n for n in needed if n.op == "source" and n.id in own and n.id not in self.held]:
            stream = self._stream(node)
            nbytes = stream.numel * SIZES[stream.dtype]
            self.held[node.id] = held = self._buffer(stream.dtype, stream.numel)
            allocation = Allocation(held.buffer, stream.dtype, stream.numel, nbytes)
            staging = min(nbytes, LOAD_STAGING)
            self._add(Load(stream, held.buffer), (allocation,), (), tensor, staging, 0, nbytes, 0)

    # --- one pass

    def _pass(
        self,
        tensor: int,
        *,
        needed: list[Node],
        reductions: Sequence[Node] = (),
        outputs: Sequence[Output] = (),
        kept: Sequence[tuple[Node, Held]] = (),
        release: tuple[int, ...] = (),
    ) -> None:
        """One pass that makes reductions, output tensors or held buffers, all over tensors of one size."""
        blocks = [i for n in reductions for i in n.inputs if i.shape is not None]
        roots = [*blocks, *(o.node for o in outputs), *(node for node, _ in kept)]
        code = _Code(self, roots)
        for node in reductions:
            self.scalars[node.id] = Scalar(len(self.scalars))
        reduce = tuple(
            Reduction(n.op, self.scalars[n.id], tuple(code.argument(i) for i in n.inputs), _plain(n))
            for n in reductions
        )
        stores: list[Store] = []
        for output in outputs:
            slot = self.slots[output.name]
            value = code.block(output.node)
            assert isinstance(value, Register)
            stores.append(ToFile(value, output.dtype, slot.file, slot.start))
        for node, held in kept:
            value = code.block(node)
            assert isinstance(value, Register)
            stores.append(ToBuffer(value, held.buffer))
        scalars = self._scalar_code(needed) if reductions else ()
        numel = elements(roots[0].shape)
        lanes = self.machine.lanes
        operands, instructions = tuple(code.operands), tuple(code.code)
        block = _whole_rows(block_size(numel, self.machine), numel, instructions, operands, bool(reductions))
        layout = scratch_layout(
            operands,
            code.registers,
            code.masks,
            instructions,
            reduce,
            tuple(stores),
            block=block,
            compute=self.machine.compute,
            accelerator=self.machine.device != "cpu",
        )
        nbytes = layout.nbytes
        busy = min(lanes, max(1, -(-numel // block)))
        host = busy * (nbytes if self.machine.device == "cpu" else layout.staging)
        action = Pass(
            numel,
            block,
            lanes,
            operands,
            code.registers,
            code.masks,
            instructions,
            reduce,
            scalars,
            tuple(stores),
            nbytes,
        )
        reads = sum(read_bytes(o) for o in operands)
        writes = sum(numel * SIZES[s.dtype] for s in stores if isinstance(s, ToFile))
        allocate = tuple(Allocation(h.buffer, h.dtype, h.numel, h.numel * SIZES[h.dtype]) for _, h in kept)
        self._add(action, allocate, release, tensor, host, busy * nbytes, reads, writes)

    def _scalar_code(self, needed: list[Node]) -> tuple[ScalarCode, ...]:
        """Everything on numbers that can be computed by now and was not before."""
        out = []
        for node in needed:
            if node.shape is not None or node.op == "const" or node.id in self.scalars:
                continue
            if OPS[node.op].kind not in ("elementwise", "scalar"):
                continue
            if all(i.op == "const" or i.id in self.scalars for i in node.inputs):
                args = tuple(self.number(i) for i in node.inputs)
                self.scalars[node.id] = Scalar(len(self.scalars))
                out.append(ScalarCode(node.op, self.scalars[node.id], args))
        return tuple(out)

    def number(self, node: Node) -> Scalar | Constant:
        return Constant(node.attribute("value")) if node.op == "const" else self.scalars[node.id]

    def _add(
        self,
        action: Pass | Copy | Load | Opaque,
        allocate: tuple[Allocation, ...],
        release: tuple[int, ...],
        tensor: int,
        host: int,
        device: int,
        reads: int,
        writes: int,
    ) -> None:
        self.steps.append(Step(action, allocate, release, tensor, host, device, reads, writes))


class _Code:
    """Straight-line code for some values of one pass, with registers that are reused after their last use."""

    def __init__(self, scheduler: _Scheduler, roots: Sequence[Node]) -> None:
        self.scheduler = scheduler
        self.operands: list[Operand] = []
        self.code: list[Instruction] = []
        self.registers = self.masks = 0
        self._free: dict[type, list[int]] = {Register: [], Mask: []}
        self._blocks: dict[int, Register | Mask] = {}
        order = self._collect(roots)
        uses: dict[int, int] = {}
        for node in order:
            for source in self._inputs(node):
                uses[source.id] = uses.get(source.id, 0) + 1
        for root in roots:
            uses[root.id] = uses.get(root.id, 0) + 1  # never freed: reductions and stores read it at the end
        for node in order:
            self._emit(node, uses)

    def block(self, node: Node) -> Register | Mask:
        return self._blocks[node.id]

    def argument(self, node: Node) -> Argument:
        return self.scheduler.number(node) if node.shape is None else self._blocks[node.id]

    def _inputs(self, node: Node) -> tuple[Node, ...]:
        """The inputs that are blocks: not numbers, and nothing below a leaf."""
        if self._is_leaf(node):
            return ()
        return tuple([i for i in node.inputs if i.shape is not None])

    def _is_leaf(self, node: Node) -> bool:
        """Whether the node's value is read, from files or from a held buffer, instead of computed."""
        return node.op in ("source", "gather", "part", "low_rank") or node.id in self.scheduler.held

    def _collect(self, roots: Sequence[Node]) -> list[Node]:
        """Depth first, so that what is loaded is soon used."""
        order: list[Node] = []
        done: set[int] = set()
        todo: list[tuple[Node, bool]] = [(r, False) for r in reversed(roots)]
        while todo:
            node, ready = todo.pop()
            if node.id in done:
                continue
            if ready:
                done.add(node.id)
                order.append(node)
            else:
                todo.append((node, True))
                todo.extend((i, False) for i in reversed(self._inputs(node)))
        return order

    def _emit(self, node: Node, uses: dict[int, int]) -> None:
        args: list[Argument] = []
        attributes = _plain(node)
        op = node.op
        if self._is_leaf(node):
            op, attributes = "load", (("operand", len(self.operands)),)
            self.operands.append(self.scheduler._operand(node))
        else:
            args = [self.argument(i) for i in node.inputs]
        for source in dict.fromkeys(self._inputs(node)):
            uses[source.id] -= sum(1 for i in self._inputs(node) if i is source)
        # the result may take the place of an input that dies here: kernels are elementwise, in place is safe,
        # but only where the operation reads each input before it writes (all but the ones listed)
        dying = [i for i in dict.fromkeys(self._inputs(node)) if uses[i.id] == 0]
        kind: type = Mask if node.kind == "mask" else Register
        if op not in NOT_IN_PLACE:
            self._release(dying)
            out = self._take(kind)
        else:
            out = self._take(kind)
            self._release(dying)
        self._blocks[node.id] = out
        self.code.append(Instruction(op, out, tuple(args), attributes))

    def _take(self, kind: type) -> Register | Mask:
        free = self._free[kind]
        if free:
            return kind(free.pop())  # type: ignore[no-any-return]
        if kind is Mask:
            self.masks += 1
            return Mask(self.masks - 1)
        self.registers += 1
        return Register(self.registers - 1)

    def _release(self, nodes: list[Node]) -> None:
        for node in nodes:
            block = self._blocks[node.id]
            self._free[type(block)].append(block.index)


NOT_IN_PLACE = frozenset({"where", "above", "bernoulli", "installed"})
"""Operations whose result must not lie over one of their inputs."""


def block_size(numel: int, machine: Machine) -> int:
    """Elements a block: a multiple of CHUNK, small enough to occupy all lanes, no larger than the machine's limit."""
    share = -(-max(numel, 1) // (machine.lanes * 2)) if machine.lanes > 1 else max(numel, 1)
    limit = max(CHUNK, machine.block // CHUNK * CHUNK)
    return min(limit, max(CHUNK, -(-share // CHUNK) * CHUNK))


def _is_barrier(node: Node) -> bool:
    """Whether a pass must end before the node's value is known."""
    return node.op == "low_rank" or (node.op in OPS and OPS[node.op].kind in ("reduction", "opaque"))


def _blocks_below(node: Node) -> dict[int, Node]:
    """What a block of the node's value is computed from: all below it, but not beyond numbers, nor factors of
    products."""
    found = {node.id: node}
    todo = [node]
    while todo:
        below = todo.pop()
        for source in below.inputs if below.op != "low_rank" else ():
            if source.shape is not None and source.id not in found:
                found[source.id] = source
                todo.append(source)
    return found


def _connected(reductions: Sequence[Node]) -> list[list[Node]]:
    """Reductions that read something in common, over one size, go into one pass; others would only fill it up."""
    groups: list[tuple[int, set[int], list[Node]]] = []
    for node in reductions:
        size = elements(_reduced(node))
        reads = {k for i in node.inputs if i.shape is not None for k, n in _blocks_below(i).items() if not n.inputs}
        joined = [g for g in groups if g[0] == size and g[1] & reads]
        merged = (size, reads.union(*(g[1] for g in joined)), [n for g in joined for n in g[2]] + [node])
        first = groups.index(joined[0]) if joined else len(groups)
        groups = [g for g in groups if g not in joined]
        groups.insert(min(first, len(groups)), merged)
    return [g[2] for g in groups]


def _whole_rows(
    block: int, numel: int, code: Sequence[Instruction], operands: Sequence[Operand], reductions: bool
) -> int:
    """The block cut or widened to whole rows, where operations look along rows; to whole chunks besides, where those
    count."""
    rows = [int(value) for i in code for name, value in i.attributes if name == "row"]
    rows.extend(PRODUCT_ROWS * o.width for o in operands if isinstance(o, Product))
    if not rows:
        return block
    unit = math.lcm(*(max(1, row) for row in rows))
    if reductions or any(i.op == "above" for i in code):
        unit = math.lcm(unit, CHUNK)
    # where whole rows and whole chunks meet only beyond the tensor, one block holds all of it
    return min(max(unit, block // unit * unit), max(numel, 1))


def with_liveness(steps: Sequence[Step], device: str) -> list[Step]:
    """The steps with the bytes live at each: held buffers from allocation to release, and the scratch of its lanes."""
    out: list[Step] = []
    sizes: dict[int, int] = {}
    for step in steps:
        sizes.update((a.buffer, a.nbytes) for a in step.allocate)
        live = sum(sizes.values())
        host, on_device = step.host, step.device
        if device == "cpu":
            host, on_device = host + live, 0
        else:
            on_device += live
        out.append(
            Step(step.action, step.allocate, step.release, step.tensor, host, on_device, step.reads, step.writes)
        )
        for buffer in step.release:
            del sizes[buffer]
    return out


def read_bytes(operand: Operand) -> int:
    """The bytes of files that reading an operand once takes."""
    if isinstance(operand, Stream):
        return operand.numel * SIZES[operand.dtype]
    if isinstance(operand, Gather):
        size = SIZES[operand.sources[0].dtype] if operand.sources else 0
        return sum(run.rows * len(run.terms) for run in operand.runs) * operand.width * size
    return 0


def _plain(node: Node) -> tuple[tuple[str, int | float | str], ...]:
    return tuple((k, v) for k, v in node.attributes if isinstance(v, int | float | str))


def _reduced(node: Node) -> tuple[int, ...]:
    """The shape that a reduction goes over."""
    return next(i.shape for i in node.inputs if i.shape is not None)
