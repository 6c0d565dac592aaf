"""How a lane's scratch is laid out: staging, registers, masks and the memory of kernels, to the
byte.

The schedule counts it, the runtime allocates it, and both ask here.
"""

from __future__ import annotations

from ...grammar.records import dataclass
from ..checkpoint.dtypes import SIZES
from ..ops.table import OPS
from .plan import CHUNK, PRODUCT_ROWS, Gather, Held, Pass, Product, Stream, ToFile

PAGE = 1 << 12
"""Bytes of a page of memory, and at least of a block of a disk."""

ALIGNMENT = 64
"""Bytes to which every area of a lane's scratch is aligned: a cache line, a vector register."""

LOAD_STAGING = 1 << 24
"""Most bytes of host memory that a `Load` uses on its way to an accelerator."""


@dataclass(frozen=True, slots=True)
class Area:
    """Bytes `[start, start + nbytes)` of a lane's scratch."""

    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class ScratchLayout:
    """Where everything lies in a lane's scratch: areas in the order of the pass's parts, None for
    what needs no area.

    Elements of a mean over several rows of a `Gather` are converted behind its staging, in the same
    area. `states` belong to the reductions, `shared` to whichever kernel runs. The first `staging`
    bytes are those that files are read into and written from; an accelerator has them on both
    sides. `nbytes` is the sum.
    """

    operands: tuple[Area | None, ...]
    stores: tuple[Area | None, ...]
    staging: int
    registers: tuple[Area, ...]
    masks: tuple[Area, ...]
    states: tuple[Area | None, ...]
    shared: Area
    nbytes: int


def aligned(nbytes: int) -> int:
    """`nbytes` and what an area takes besides, so that the next one is aligned."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def scratch_layout(pass_: Pass, *, compute: str, accelerator: bool = False) -> ScratchLayout:
    """The layout of one lane's scratch for a pass; `compute` is F32 or F64.

    `ScratchLayout.nbytes` is exactly what a lane needs: `Pass.nbytes`, which is not looked at here.
    On the CPU it is host memory. An accelerator has it on the device, and `ScratchLayout.staging`
    of it on the host too.
    """
    size, block, end = SIZES[compute], pass_.block, 0

    def area(nbytes: int) -> Area:
        nonlocal end
        start, end = end, end + aligned(nbytes)
        return Area(start, nbytes)

    # first, and of whole pages where it is large, what is written: the disk may take it from there
    def paged(nbytes: int) -> int:
        return nbytes if nbytes < PAGE else -(-nbytes // PAGE) * PAGE

    stored = tuple(area(paged(SIZES[s.dtype] * block)) if isinstance(s, ToFile) else None for s in pass_.stores)
    staged = tuple(
        None if isinstance(o, Held | Product) else area(_staged_size(o, size) * block) for o in pass_.operands
    )
    staging = end
    ops = [OPS[i.op] for i in pass_.code if i.op != "load"] + [OPS[r.op] for r in pass_.reductions]
    states = [OPS[r.op].state for r in pass_.reductions]
    chunk = min(CHUNK, block)
    if accelerator:
        shared = max((op.device_scratch * block for op in ops), default=0)
    else:
        shared = max((op.scratch * block + op.chunk * chunk + op.fixed for op in ops), default=0)
    # operations of installed packages say themselves what they need
    own = max((int(v) for i in pass_.code for k, v in i.attributes if k == "scratch"), default=0)
    term = max((PRODUCT_ROWS * o.width * size for o in pass_.operands if isinstance(o, Product)), default=0)
    return ScratchLayout(
        operands=staged,
        stores=stored,
        staging=staging,
        registers=tuple(area(size * block) for _ in range(pass_.registers)),
        masks=tuple(area(block) for _ in range(pass_.masks)),
        states=tuple(area(n) if n else None for n in states),
        shared=area(max(shared, own * block, 0 if accelerator else min(term, size * block))),
        nbytes=end,
    )


def _staged_size(operand: Stream | Gather, size: int) -> int:
    """Bytes per element that an operand's staging needs, `size` being those of a number in the
    compute dtype."""
    if isinstance(operand, Stream):
        return SIZES[operand.dtype]
    stored = max((SIZES[s.dtype] for s in operand.sources), default=0)
    means = any(len(run.terms) > 1 for run in operand.runs)
    # a number's alignment holds behind the stored elements as long as these are padded to its size
    return max(stored, size) + size if means else stored
