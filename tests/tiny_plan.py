"""A plan for one tiny file and a document; carried out by hand, and what comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mergec.compiler.checkpoint.catalog import InputFile
from mergec.compiler.plan.plan import Document, FixedBytes, Plan, PlannedOutput
from mergec.grammar.diagnostic import Exit, MergecError
from mergec.runtime.files.opening import as_it_is
from mergec.runtime.output.target import Target
from mergec.runtime.output.writer import Writer

HEADER = b'\x39\0\0\0\0\0\0\0{"t":{"dtype":"U8","shape":[10],"data_offsets":[0,10]}}  '
FIXED = (FixedBytes(0, HEADER),)
START = len(HEADER)
PLAN = Plan(
    version="0",
    device="cpu",
    compute="F32",
    lanes=1,
    single=False,
    on_nonfinite="report",
    inputs=(),
    outputs=(PlannedOutput("model.safetensors", START + 10, FIXED),),
    tensors=(),
    documents=(Document("config.json", '{"é": 1}'),),
    tagalongs=(),
    scalars=0,
    steps=(),
    peak_host=0,
    peak_device=0,
    reads=0,
    writes=0,
)
WEIGHTS = HEADER + b"0123456789"


def code(caught: pytest.ExceptionInfo[MergecError]) -> tuple[str, Exit]:
    return caught.value.diagnostics[0].code, caught.value.exit


def planned(path: Path) -> InputFile:
    return as_it_is(str(path), path.stat())


def make(path: Path, plan: Plan = PLAN, *, force: bool = False) -> None:
    with Target(str(path), plan, force=force) as target, Writer(target.folder, plan) as writer:
        writer.start()
        writer.write(0, START, memoryview(b"0123456789"))
        writer.finish()
        target.commit()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


MADE = {"config.json": '{"é": 1}'.encode(), "model.safetensors": WEIGHTS}
