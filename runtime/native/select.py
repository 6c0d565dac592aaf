"""A pass's code in the compiled kernels' instructions: which one each op becomes, and whether there
is one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy

from ...compiler.checkpoint.dtypes import BITS
from ...compiler.ops.table import OPS, SCALARS
from ...compiler.plan.plan import (
    Argument,
    Constant,
    Held,
    Instruction,
    Mask,
    Pass,
    Product,
    Register,
    Store,
    Stream,
    ToBuffer,
)
from ...compiler.plan.scratch import ScratchLayout

PIECE = 1024
"""Elements that the code runs over at a time: a dozen registers of as many stay in the first levels
of cache."""

LONGEST_ROW = 1 << 24
"""Elements of the longest row that operations along rows take: float32 can't distinguish the ranks
of a longer one."""

COUNTING: Mapping[str, tuple[str, ...]] = {
    "magnitudes": ("histogram_v", "window_v", "ties_v"),
    "digits": ("histogram_v", "window_v"),
    "order": ("order_v", "order_digits_v"),
}
"""The instructions of accumulators that count bit patterns."""

REDUCTIONS: Mapping[str, tuple[str, ...]] = {
    name: COUNTING.get(row.accumulator, (f"{name}_{row.takes}",))
    for name, row in OPS.items()
    if row.kind == "reduction"
}
"""The instructions of each reduction."""

POWERS: Mapping[float, str] = {2.0: "mul_vv", 0.5: "sqrt_v"}
"""What a block is raised to by another instruction than `pow_vn`."""


def is_number(argument: Argument) -> bool:
    return isinstance(argument, Constant) or not isinstance(argument, Register | Mask)


def folded(instruction: Instruction) -> bool:
    """Whether an instruction gives the same number at every element, from numbers alone."""
    return bool(instruction.args) and instruction.op in SCALARS and all(map(is_number, instruction.args))


def name_of(instruction: Instruction, pass_: Pass) -> str | None:
    """The compiled instruction that does what `instruction` does; None where there can't be one."""
    op, args = instruction.op, instruction.args
    if op == "load":
        operand = pass_.operands[int(dict(instruction.attributes)["operand"])]
        if isinstance(operand, Product):
            return "load_turned" if operand.turned else "load_product"
        if isinstance(operand, Held) and operand.dtype == BITS:
            return "load_bits"
        return f"load_{operand.dtype}" if isinstance(operand, Stream | Held) else None
    if folded(instruction):
        return "fill_n" if isinstance(instruction.out, Register) else "set_n"
    letters = ["v" if isinstance(a, Register) else "m" if isinstance(a, Mask) else "n" for a in args]
    if op == "above":
        letters[1] = "t"
    return f"{op}_{''.join(letters)}"


def stored_by(store: Store) -> str:
    """The compiled instruction that a store takes."""
    if isinstance(store, ToBuffer):
        return "store_bits" if isinstance(store.value, Mask) else "store_F32"
    return f"store_{store.dtype}"


def piece_of(pass_: Pass, layout: ScratchLayout) -> int | None:
    """Elements of a piece: whole rows where operations look along rows; None where those are too
    long."""
    rows = {int(value) for i in pass_.code for name, value in i.attributes if name == "row"}
    if not rows:
        return min(PIECE, max(1, pass_.block))
    row = max(rows)
    whole = len(rows) == 1 and 0 < row <= LONGEST_ROW and (pass_.block % row == 0 or pass_.numel <= pass_.block)
    if not whole or (any(i.op == "row_rank" for i in pass_.code) and layout.shared.nbytes < 16 * row):
        return None
    return row * max(1, PIECE // row)


def knows(instructions: Mapping[str, int], pass_: Pass, layout: ScratchLayout) -> bool:
    """Whether the compiled kernels can run all of a pass."""
    names = [name_of(i, pass_) for i in pass_.code]
    names += [name for r in pass_.reductions for name in REDUCTIONS[r.op]]
    names += [stored_by(store) for store in pass_.stores]
    # histograms count in 32 bits
    countable = not pass_.reductions or pass_.numel < 1 << 32
    return countable and all(name in instructions for name in names) and piece_of(pass_, layout) is not None


def rounded(number: float) -> float:
    """To float32, and beyond the largest to infinity."""
    with numpy.errstate(over="ignore"):
        return float(numpy.float32(number))


def bound_of(p: float) -> int:
    """The b for which u < p, p rounded to float32, is u * 2^24 < b."""
    p = rounded(p)
    return 0 if math.isnan(p) else math.ceil(min(max(p, 0.0), 1.0) * (1 << 24))
