"""The machine that a schedule is made for, and the blocks that tensors are cut into for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...grammar.records import dataclass
from .plan import CHUNK, PRODUCT_ROWS, Instruction, Operand, Product


@dataclass(frozen=True, slots=True)
class Machine:
    """What the schedule is made for.

    `device` is its name, or those of several with commas between; lanes and device memory are then
    those of each. `lanes` is how many blocks are in flight at once, `block` their largest size in
    elements. `hold`: what several passes need is kept: on an accelerator what they read, on the CPU
    costly masks.
    """

    device: str
    lanes: int
    block: int
    compute: str
    hold: bool = True


def devices_of(device: str) -> tuple[str, ...]:
    """The single devices of a plan's `device`."""
    return tuple(device.split(","))


def block_size(numel: int, machine: Machine) -> int:
    """Elements per block: a multiple of CHUNK, small enough to occupy all lanes, no larger than the
    machine's limit."""
    share = -(-max(numel, 1) // (machine.lanes * 2)) if machine.lanes > 1 else max(numel, 1)
    limit = max(CHUNK, machine.block // CHUNK * CHUNK)
    return min(limit, max(CHUNK, -(-share // CHUNK) * CHUNK))


def whole_rows(
    block: int, numel: int, code: Sequence[Instruction], operands: Sequence[Operand], reductions: bool
) -> int:
    """The block cut or widened to whole rows, where operations look along rows; to whole chunks
    besides, where those count."""
    rows = [int(value) for i in code for name, value in i.attributes if name == "row"]
    rows.extend(PRODUCT_ROWS * o.width for o in operands if isinstance(o, Product))
    if not rows:
        return block
    unit = math.lcm(*(max(1, row) for row in rows))
    if reductions or any(i.op == "above" for i in code):
        unit = math.lcm(unit, CHUNK)
    # where whole rows and whole chunks meet only beyond the tensor, one block holds all of it
    return min(max(unit, block // unit * unit), max(numel, 1))
