"""The part of a pass's code that some of its values depend on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .plan import Argument, Instruction, Mask, Register


def code_for(code: Sequence[Instruction], values: Iterable[Argument]) -> tuple[Instruction, ...]:
    """The instructions that `values` depend on as they are when the code ends; numbers among them
    depend on none.

    A register is used for one value after another, so the code is gone through backwards.
    """
    live: set[Argument] = set(values)
    kept = []
    for instruction in reversed(code):
        if instruction.out in live:
            kept.append(instruction)
            live.discard(instruction.out)
            live.update(a for a in instruction.args if isinstance(a, Register | Mask))
    return tuple(reversed(kept))
