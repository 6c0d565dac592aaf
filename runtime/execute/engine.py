"""Runs the steps that compute: held buffers, the lanes' memory, passes, loads and whole-tensor
operations.

Needs no torch itself. A pass runs on the compiled kernels where these know all of its code. What
they don't know, and all work on accelerators, runs on torch's kernels, which are loaded at the
first such step.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Any

from ...compiler.plan.concurrency import ConcurrentOutputs
from ...compiler.plan.owners import Owners
from ...compiler.plan.plan import Copy, Load, Opaque, Pass, Plan, Step
from ...compiler.plan.scratch import LOAD_STAGING, ScratchLayout, aligned, scratch_layout
from ..machine.host import Host, HostArena, HostBuffer
from ..machine.lanes import Lanes
from ..machine.memory import Arena, Memory, Meter
from ..machine.out_of_memory import device_full, is_device_full
from ..native.backend import Native
from ..native.batch import Batches
from ..stream.batching import Able, Lone, SmallOutput
from ..stream.interfaces import Reads, Tally, Writes
from ..stream.passes import Backend, Context, run_pass
from ..stream.ranges import file_ranges

LOAD_PIECE = 1 << 26
"""Bytes that are read at a time into a held buffer, so that a load can be stopped and shown."""


class Engine:
    """Runs one plan's steps, given in order; `close` frees what is left and gives torch its threads
    back.

    A lane's arena is kept from pass to pass, as large as any pass of the plan needs it, unless that
    would hold more memory than the plan's peak: then it is replaced by one of exactly the size
    needed.
    """

    def __init__(self, plan: Plan, reads: Reads, writes: Writes[Any], lanes: Lanes, meter: Meter, tally: Tally) -> None:
        self._plan, self._reads, self._lanes, self._meter, self._tally = plan, reads, lanes, meter, tally
        self._arenas: list[Arena | None] = [None] * lanes.count
        self._context = Context(
            plan=plan,
            reads=reads,
            writes=writes,
            lanes=lanes,
            tally=tally,
            scalars=[0.0] * plan.scalars,
            buffers={},
            owners=Owners(plan.tensors),
        )
        self._portable: Any = None
        self._memory: Memory = Host() if plan.device == "cpu" else _devices().Accelerator(plan.device)
        self._native = Native.of(self._context) if plan.device == "cpu" else None
        self._batches = Batches(self._context, self._native.kernels) if self._native is not None else None
        self._largest, self._largest_staging = 0, 0
        for step in plan.steps:
            if isinstance(step.action, Pass):
                self._largest = max(self._largest, step.action.nbytes)
                if self._memory.accelerator:
                    self._largest_staging = max(self._largest_staging, self._layout(step.action).staging)

    def close(self) -> None:
        """Frees everything, also after a failure."""
        if self._portable is not None:
            self._portable.close()
        for lane in range(len(self._arenas)):
            self._drop(lane)
        for buffer in list(self._context.buffers):
            self._release(buffer)

    @property
    def able(self) -> Able | None:
        """Which passes over small tensors can be run in a batch; None where none can."""
        return self._batches.able if self._batches is not None else None

    @property
    def lone(self) -> Lone | None:
        """Whether a lane can run a pass by itself; None where none can."""
        native = self._native
        return (lambda pass_: native.knows(pass_, self._layout(pass_))) if native is not None else None

    def run_batchable(self, members: Sequence[SmallOutput | Step], watched: Set[int]) -> None:
        """Runs small outputs, within the memory that any one of them may hold by itself; see
        `Batches.run`."""
        assert self._batches is not None
        outputs = [m for m in members if isinstance(m, SmallOutput)]
        nbytes = min(output.signature.nbytes for output in outputs)
        held = sum(b.nbytes for b in self._context.buffers.values()) + nbytes
        self._fit(1, nbytes, 0, 0)
        self._tally.live(held, 0)
        arena = self._arenas[0]
        assert isinstance(arena, HostArena)
        self._batches.run(members, arena.bytes[:nbytes], watched)

    def run_concurrently(self, group: ConcurrentOutputs) -> None:
        """Runs outputs of medium size concurrently, each in one lane; in fewer lanes where others
        hold memory that the plan has for these."""
        members, nbytes = group.members, group.needs
        held = sum(b.nbytes for b in self._context.buffers.values())
        lanes = min(group.lanes, len(members), max(1, (self._plan.peak_host - held) // nbytes))
        self._fit(lanes, nbytes, 0, 0)
        self._tally.live(held + lanes * nbytes, 0)
        # outputs of one equivalence class have their scalars and buffers in common
        own = [replace(self._context, scalars=self._context.scalars.copy(), buffers={}) for _ in range(lanes)]
        backends = [Native.of(context) for context in own]

        def work(lane: int, index: int) -> None:
            context, arena, backend = own[lane], self._arenas[lane], backends[lane]
            assert isinstance(arena, HostArena)
            assert backend is not None
            self._tally.tensor(members[index].steps[0].tensor)
            end = nbytes
            for step in members[index].steps:
                assert isinstance(step.action, Pass)
                for a in step.allocate:
                    end -= aligned(a.nbytes)
                    context.buffers[a.buffer] = HostBuffer(a.dtype, a.numel, arena.bytes[end:])
                run_pass(context, step.action, self._layout(step.action), [arena], backend)
            context.buffers.clear()

        self._lanes.spread(len(members), work, lanes)

    def run(self, step: Step) -> None:
        """Allocates what the step needs, runs it and releases what it was the last to need.

        Raises MergecError (E0644) where the device has no memory for it.
        """
        try:
            self._run(step)
        except RuntimeError as error:
            if not is_device_full(error):
                raise
            raise device_full(self._plan, self._memory.free()) from error

    def _run(self, step: Step) -> None:
        action = step.action
        layout = self._layout(action) if isinstance(action, Pass) else None
        workspace = action.workspace if isinstance(action, Opaque) else 0
        incoming = sum(a.nbytes for a in step.allocate) + workspace
        lanes, nbytes, staging = self._needs(step, layout, incoming)
        self._fit(lanes, nbytes, staging, incoming)
        held = self._held(step, workspace)
        if self._memory.accelerator:
            self._tally.live(lanes * staging, held + lanes * nbytes)
        else:
            self._tally.live(held + lanes * nbytes, 0)
        match action:
            case Pass():
                assert layout is not None
                arenas = [a for a in self._arenas[:lanes] if a is not None]
                run_pass(self._context, action, layout, arenas, self._backend(action, layout))
            case Load():
                self._load(action)
            case Opaque():
                self._opaque(action)
            case Copy():
                raise RuntimeError("a copy neither allocates nor releases buffers")
        for buffer in step.release:
            self._release(buffer)

    def _backend(self, pass_: Pass, layout: ScratchLayout) -> Backend:
        """The kernels that run a pass."""
        if self._native is not None and self._native.knows(pass_, layout):
            return self._native
        backend: Backend = self._torch()
        return backend

    def _torch(self) -> Any:
        """The portable backend, which the first call makes."""
        if self._portable is None:
            module = importlib.import_module("..portable.backend", __package__)
            self._portable = module.Portable(self._context, self._memory.name)
        return self._portable

    # --- memory

    def _layout(self, pass_: Pass) -> ScratchLayout:
        layout = scratch_layout(pass_, compute=self._plan.compute, accelerator=self._memory.accelerator)
        if layout.nbytes != pass_.nbytes:
            raise RuntimeError(f"a pass needs {layout.nbytes} bytes of scratch, the plan says {pass_.nbytes}")
        return layout

    def _needs(self, step: Step, layout: ScratchLayout | None, incoming: int) -> tuple[int, int, int]:
        """Lanes, and for each of them bytes of its arena and of its staging on the host (0 on the
        CPU).

        There are as many as the step has blocks, and fewer where these would hold more than the
        plan says.
        """
        action, accelerator = step.action, self._memory.accelerator
        if isinstance(action, Pass) and layout is not None:
            if not action.numel:
                return 0, layout.nbytes, 0
            lanes = min(self._lanes.count, -(-action.numel // action.block))
            staging = layout.staging if accelerator else 0
            held = sum(b.nbytes for b in self._context.buffers.values()) + incoming
            room = (step.device if accelerator else step.host) - held
            lanes = min(lanes, room // max(1, layout.nbytes), step.host // staging if staging else lanes)
            return max(1, lanes), layout.nbytes, staging
        if isinstance(action, Load) and accelerator:
            nbytes = sum(e.nbytes for e in action.source.extents)
            return 1, 0, min(nbytes, LOAD_STAGING)
        return 0, 0, 0

    def _held(self, step: Step, workspace: int) -> int:
        """Allocates the step's buffers; bytes of all live buffers, and the workspace, on the
        device."""
        for a in step.allocate:
            self._meter.allocate(f"buffer {a.buffer}", a.nbytes, device=self._memory.accelerator)
            self._context.buffers[a.buffer] = self._memory.buffer(a.dtype, a.numel)
        return sum(b.nbytes for b in self._context.buffers.values()) + workspace

    def _release(self, buffer: int) -> None:
        self._context.buffers.pop(buffer, None)
        self._meter.free(f"buffer {buffer}")

    def _fit(self, lanes: int, nbytes: int, staging: int, incoming: int) -> None:
        """Gives the first `lanes` lanes arenas of at least these sizes, all arenas together within
        the plan's peak."""
        accelerator = self._memory.accelerator
        kept = [a for a in self._arenas if a is not None]
        if accelerator:
            room = self._plan.peak_device - self._meter.device - incoming + sum(a.nbytes for a in kept)
            room_staging = self._plan.peak_host - self._meter.host + sum(a.staging for a in kept)
        else:
            room, room_staging = self._plan.peak_host - self._meter.host - incoming + sum(a.nbytes for a in kept), 0

        def fits(sizes: list[tuple[int, int]]) -> bool:
            return sum(n for n, _ in sizes) <= room and sum(s for _, s in sizes) <= room_staging

        def sizes(wanted: tuple[int, int], idle: bool) -> list[tuple[int, int]]:
            """What there would be if every arena that is too small were replaced by one of the
            wanted size."""
            have = [(a.nbytes, a.staging) if a is not None else (0, 0) for a in self._arenas]
            enough = [h if h[0] >= nbytes and h[1] >= staging else wanted for h in have[:lanes]]
            return enough + (have[lanes:] if idle else [(0, 0)] * (len(have) - lanes))

        exact = (nbytes, staging)
        generous = (max(nbytes, self._largest), max(staging, self._largest_staging))
        chosen = [exact] * lanes + [(0, 0)] * (len(self._arenas) - lanes)
        for candidate in (sizes(generous, True), sizes(exact, True), sizes(exact, False)):
            if fits(candidate):
                chosen = candidate
                break
        changed = [
            lane
            for lane, (arena, size) in enumerate(zip(self._arenas, chosen, strict=True))
            if ((arena.nbytes, arena.staging) if arena is not None else (0, 0)) != size
        ]
        for lane in changed:
            self._drop(lane)
        for lane in changed:
            if chosen[lane] != (0, 0):
                self._grow(lane, *chosen[lane])

    def _grow(self, lane: int, nbytes: int, staging: int) -> None:
        self._meter.allocate(f"lane {lane}", nbytes, device=self._memory.accelerator)
        if self._memory.accelerator:
            self._meter.allocate(f"staging of lane {lane}", staging)
        self._arenas[lane] = self._memory.arena(nbytes, staging)

    def _drop(self, lane: int) -> None:
        if self._arenas[lane] is not None:
            self._arenas[lane] = None
            self._meter.free(f"lane {lane}")
            if self._memory.accelerator:
                self._meter.free(f"staging of lane {lane}")

    # --- steps

    def _load(self, load: Load) -> None:
        if load.source.numel == 0:
            return  # no lane may have got any memory for it
        if self._memory.accelerator:
            self._torch().load(load, self._arenas[0])
            return
        buffer, at = self._context.buffers[load.buffer], 0
        assert isinstance(buffer, HostBuffer)
        for file, start, nbytes in file_ranges(load.source, 0, load.source.numel):
            for offset in range(0, nbytes, LOAD_PIECE):
                self._lanes.check()
                size = min(LOAD_PIECE, nbytes - offset)
                self._reads.read_into(file, start + offset, buffer.bytes.data[at : at + size])
                self._tally.moved(size, 0)
                at += size

    def _opaque(self, opaque: Opaque) -> None:
        self._meter.allocate("workspace", opaque.workspace, device=self._memory.accelerator)
        try:
            self._torch().opaque(opaque)
        finally:
            self._meter.free("workspace")


def _devices() -> Any:
    """The module of torch's devices, which takes a second to import."""
    return importlib.import_module("..machine.accelerator", __package__)
