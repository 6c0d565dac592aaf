"""Graph to steps: what is computed in which pass over which bytes, and how much memory that takes.

For each distinct output value: the reductions that it needs, level by level (a reduction of a reduction's user is a
level higher), one streaming pass a level; then a pass that stores it. Numbers that reductions give are kept for good
(they are a few bytes), so a value needed by two outputs is reduced once. On a device, tensors that several passes
read are brought over once and freed after the last of them.

Outputs that are computed alike are scheduled once, as a `Stamp` (`stamps.py`); the steps of each are made of it when
they are asked for, so that a budget can be tried without making them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from .dtypes import SIZES
from .graph import Graph, Likeness, Node, Output, StoredRange
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
from .slots import Origins, Slot
from .stamps import Stamp, extents_of


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


@dataclass(frozen=True, slots=True)
class Part:
    """Steps of the schedule: those of outputs with a value of their own, or a stamp and an output to make them for.

    `like` are the steps themselves, or in the stamp's case those of another output that is computed alike.
    """

    like: tuple[Step, ...]
    stamp: Stamp | None = None
    output: Output | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps in order, still in parts, and what they come to.

    `scalars` is their number, `lanes` how many blocks are in flight; `host` and `device` are the most bytes that are
    live at any step, `reads` and `writes` the bytes of files that all steps together read and write.
    """

    parts: tuple[Part, ...]
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
            if part.stamp is None or part.output is None:
                found.update(e.file for step in part.like for e in extents_of(step.action))
            else:
                found.update(part.stamp.files(part.output))
        return found

    def steps(self) -> tuple[Step, ...]:
        """All steps, those of one output after the other."""
        return tuple([step for part in self.parts for step in self.steps_of(part)])

    def steps_of(self, part: Part) -> Sequence[Step]:
        """The steps of one part."""
        if part.stamp is None or part.output is None:
            return part.like
        return part.stamp.steps(part.output, self.slots[part.output.name])


def schedule(
    graph: Graph,
    slots: Mapping[str, Slot],
    models: Sequence[Model],
    files: Mapping[tuple[int, int], int],
    machine: Machine,
) -> Schedule:
    """The schedule of a graph.

    `slots` says where each output lies; `files` maps (model number, its file) to the plan's input files.
    """
    return _Scheduler(graph, slots, Origins(models, files), machine).run()


class _Scheduler:
    def __init__(
        self,
        graph: Graph,
        slots: Mapping[str, Slot],
        origins: Origins,
        machine: Machine,
    ) -> None:
        self.graph, self.slots, self.origins, self.machine = graph, slots, origins, machine
        self.scalars: dict[int, Scalar] = {}
        self.streams: dict[StoredRange, Stream] = {}
        self.held: dict[int, Held] = {}
        self.factors: dict[int, Held] = {}
        self.buffers = self.numbers = 0
        self.steps: list[Step] = []
        self.level: dict[int, int] = {}

    def run(self) -> Schedule:
        self._levels()
        groups: dict[int, list[Output]] = {}
        alike: list[tuple[tuple[int, int], Output]] = []
        for output in self.graph.outputs:
            if output.likeness is None:
                groups.setdefault(output.node.id, []).append(output)
            else:
                slot = self.slots[output.name]
                alike.append(((slot.file, slot.start), output))
        work: list[tuple[tuple[int, int], list[Output] | Output]] = [(self._order(g), g) for g in groups.values()]
        work += alike
        work.sort(key=itemgetter(0))
        stamps: dict[Likeness, Stamp] = {}
        parts: list[Part] = []
        for _, item in work:
            if isinstance(item, Output):
                assert item.likeness is not None
                stamp = stamps.get(item.likeness)
                if stamp is None:
                    stamp = stamps[item.likeness] = self._stamp(item, item.likeness)
                parts.append(Part(stamp.like, stamp, item))
            else:
                parts.append(Part(self._steps(item)))
        # of equal parts the figures are taken once
        counts = Counter(id(part.like) for part in parts)
        found = [(counts[key], like) for key, like in {id(part.like): part.like for part in parts}.items()]
        return Schedule(
            tuple(parts),
            self.numbers,
            self.machine.lanes,
            host=max((s.host for _, like in found for s in like), default=0),
            device=max((s.device for _, like in found for s in like), default=0),
            reads=sum(count * s.reads for count, like in found for s in like),
            writes=sum(count * s.writes for count, like in found for s in like),
            slots=self.slots,
        )

    def _levels(self) -> None:
        """How many barriers lie below each node."""
        for node in self.graph.nodes:
            below = max((self.level[i.id] for i in node.inputs), default=0)
            self.level[node.id] = below + _is_barrier(node)

    def _order(self, outputs: list[Output]) -> tuple[int, int]:
        """By the place of the output in its files: inputs are mostly laid out alike, so reads follow their order
        too."""
        return min((self.slots[o.name].file, self.slots[o.name].start) for o in outputs)

    def _steps(self, outputs: list[Output]) -> tuple[Step, ...]:
        """The steps of outputs of one value, with the bytes that are live at each."""
        self.steps = []
        self.streams = {}
        self._group(outputs)
        return tuple(with_liveness(self.steps, self.machine.device))

    def _stamp(self, output: Output, likeness: Likeness) -> Stamp:
        """The steps of an output's nodes, which no other's have to do with: they are made for each output anew."""
        kept, self.scalars = self.scalars, {}
        steps = self._steps([output])
        self.scalars = kept
        return Stamp(steps, likeness, self.streams, self.origins)

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
        """What a source reads, the same object in all steps of a group."""
        place = node.attribute("range")
        stream = self.streams.get(place)
        if stream is None or stream.numel != elements(node.shape):
            stream = self.streams[place] = self.origins.stream(place, elements(node.shape))
        return stream

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
            self.scalars[node.id] = self._scalar()
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
                self.scalars[node.id] = self._scalar()
                out.append(ScalarCode(node.op, self.scalars[node.id], args))
        return tuple(out)

    def _scalar(self) -> Scalar:
        self.numbers += 1
        return Scalar(self.numbers - 1)

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
