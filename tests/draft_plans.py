"""Plans put together by hand, and files in memory to run them on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy
import torch
from mergec.compiler.checkpoint.catalog import InputFile
from mergec.compiler.checkpoint.dtypes import SIZES
from mergec.compiler.plan.plan import (
    CHUNK,
    Allocation,
    Extent,
    Instruction,
    Mask,
    Operand,
    OutputTensor,
    Pass,
    Plan,
    PlannedOutput,
    Reduction,
    Register,
    ScalarCode,
    Step,
    Stream,
    ToBuffer,
    ToFile,
)
from mergec.compiler.plan.scratch import scratch_layout
from mergec.runtime.execute.executor import Outcome, execute

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}


class MemoryInputs:
    def __init__(self, files: list[bytes]) -> None:
        self.files = files

    def read_into(self, file: int, start: int, view: memoryview) -> None:
        data = self.files[file][start : start + len(view)]
        assert len(data) == len(view)
        view[:] = data

    def borrowed(self, files: Sequence[int]) -> AbstractContextManager[Sequence[int]]:
        del files
        return nullcontext(())


class MemoryOutputs:
    """Refuses to write a byte twice."""

    def __init__(self, sizes: list[int]) -> None:
        self.files = [bytearray(n) for n in sizes]
        self._written = [numpy.zeros(n, bool) for n in sizes]

    def write(self, file: int, start: int, data: memoryview) -> None:
        assert not self._written[file][start : start + len(data)].any()
        self._written[file][start : start + len(data)] = True
        self.files[file][start : start + len(data)] = data

    def copy(self, inputs: MemoryInputs, extent: Extent, file: int, start: int) -> None:
        self.write(file, start, memoryview(inputs.files[extent.file])[extent.start : extent.start + extent.nbytes])

    @property
    def complete(self) -> bool:
        return all(w.all() for w in self._written)


@dataclass
class Seen:
    """A progress that remembers what it is told."""

    tensors: list[int] = field(default_factory=list)
    host: list[int] = field(default_factory=list)
    read: int = 0
    written: int = 0

    def tensor(self, index: int) -> None:
        self.tensors.append(index)

    def moved(self, read: int, written: int) -> None:
        self.read += read
        self.written += written

    def live(self, host: int, device: int) -> None:
        assert device == 0
        self.host.append(host)


@dataclass
class Draft:
    """A plan in the making, with the bytes of its inputs."""

    compute: str = "F32"
    lanes: int = 1
    block: int = CHUNK
    inputs: list[bytes] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    held: int = 0

    def input(self, values: torch.Tensor, split: int = 0) -> Stream:
        """A stream over a new file; with `split`, over two extents that lie the wrong way round in
        it."""
        data = values.contiguous().view(torch.uint8).numpy().tobytes() if values.numel() else b""
        dtype = next(k for k, v in DTYPES.items() if v == values.dtype)
        cut = split * SIZES[dtype]
        self.inputs.append(b"head" + data[cut:] + data[:cut])
        file, rest = len(self.inputs) - 1, len(data) - cut
        extents = [Extent(file, 4 + rest, cut), Extent(file, 4, rest)]
        return Stream(dtype, values.numel(), tuple(e for e in extents if e.nbytes))

    def output(self, register: int, dtype: str, numel: int) -> ToFile:
        self.outputs.append(SIZES[dtype] * numel)
        return ToFile(Register(register), dtype, len(self.outputs) - 1, 0)

    def add(
        self,
        numel: int,
        operands: list[Operand],
        code: list[Instruction],
        *,
        reductions: list[Reduction] | None = None,
        scalars: list[ScalarCode] | None = None,
        stores: list[ToFile | ToBuffer] | None = None,
        allocate: list[Allocation] | None = None,
        release: list[int] | None = None,
    ) -> None:
        """A pass that begins by loading operand i into register i."""
        loads = [Instruction("load", Register(i), (), (("operand", i),)) for i in range(len(operands))]
        everything = loads + code
        places = [i.out for i in everything]
        registers = 1 + max((p.index for p in places if isinstance(p, Register)), default=-1)
        masks = 1 + max((p.index for p in places if isinstance(p, Mask)), default=-1)
        parts = (tuple(operands), registers, masks, tuple(everything), tuple(reductions or ()))
        written = tuple(stores or ())
        bare = Pass(
            numel,
            self.block,
            self.lanes,
            *parts,
            tuple(scalars or ()),
            written,
            0,  # type: ignore[arg-type]
        )
        nbytes = scratch_layout(bare, compute=self.compute).nbytes
        pass_ = replace(bare, nbytes=nbytes)
        busy = min(self.lanes, -(-numel // self.block))
        self.held += sum(a.nbytes for a in allocate or ())
        self.steps.append(
            Step(pass_, tuple(allocate or ()), tuple(release or ()), 0, self.held + busy * nbytes, 0, 0, 0)
        )
        self.held -= sum(a.nbytes for s in self.steps for a in s.allocate if a.buffer in (release or ()))

    def plan(self, scalars: int = 16) -> Plan:
        return Plan(
            version="1",
            device="cpu",
            compute=self.compute,
            lanes=self.lanes,
            single=False,
            on_nonfinite="report",
            inputs=tuple(InputFile(f"memory:{i}", len(d), 0) for i, d in enumerate(self.inputs)),
            outputs=tuple(PlannedOutput(f"{i}", n, ()) for i, n in enumerate(self.outputs)),
            tensors=tuple(OutputTensor(f"tensor {i}", "U8", (n,), i, 0, n, ()) for i, n in enumerate(self.outputs)),
            documents=(),
            tagalongs=(),
            scalars=scalars,
            steps=tuple(self.steps),
            peak_host=max((s.host for s in self.steps), default=0),
            peak_device=0,
            reads=0,
            writes=0,
        )

    def run(self, progress: Seen | None = None, scalars: int = 16) -> tuple[Outcome, list[bytes]]:
        outputs = MemoryOutputs(self.outputs)
        outcome = execute(self.plan(scalars), MemoryInputs(self.inputs), outputs, progress)
        assert outputs.complete
        assert outcome.bytes_written == sum(self.outputs)
        return outcome, [bytes(f) for f in outputs.files]
