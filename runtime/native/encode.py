"""What an instruction of a plan is to the compiled kernels: the fields of its row, which `body.h`
explains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...compiler.ops.table import SCALARS
from ...compiler.plan.plan import Argument, Instruction
from ...grammar.records import dataclass
from ..reduce.reducer import Threshold
from .range_reduction import PARTS
from .select import POWERS, bound_of, folded, is_number, rounded


@dataclass(frozen=True, slots=True)
class Made:
    """A field's value, made of the values that scalars and constants have when the row is to
    run."""

    make: Callable[..., float]
    of: tuple[Argument, ...]


Fields = dict[str, int | Made]
"""A row's fields by name, without those that are 0."""


def fields_of(
    instruction: Instruction,
    name: str,
    instructions: Mapping[str, int],
    place: Callable[[Argument], int],
    *,
    counter: int,
    scratch: int,
) -> Fields:
    """The fields of an instruction, `name` in the kernels; of a `load`, all but where it reads
    from.

    `place` gives the address of a register or mask; `counter` is that of a word which is the
    instruction's own, `scratch` that of what the kernels of a lane share.
    """
    op, args, attributes = instruction.op, instruction.args, dict(instruction.attributes)
    fields: Fields = {"op": instructions[name], "out": place(instruction.out)}
    if op == "load":
        pass
    elif folded(instruction):
        fields["x"] = Made(SCALARS[op], args)
    elif name == "pow_vn":
        fields["a"] = fields["b"] = place(args[0])
        fields["y"] = Made(float, args[1:])
        fields["op"] = Made(lambda power: instructions[POWERS.get(rounded(power), name)], args[1:])
    elif op in ("sin", "cos"):
        fields |= {"a": place(args[0]), "c": PARTS.ctypes.data}
    elif op == "above":
        fields |= {"a": place(args[0]), "b": counter}
        fields |= {"u": Made(_pattern, args[1:]), "v": Made(_cut, args[1:]), "w": Made(_extra, args[1:])}
    elif op == "bernoulli":
        fields["u"] = key_of(instruction)
        if name == "bernoulli_v":
            fields["a"] = place(args[0])
        else:
            fields["v"] = Made(lambda p: (bound_of(p) << 40) % (1 << 64), args)
            fields["w"] = Made(lambda p: int(bound_of(p) == 1 << 24), args)
    elif op == "where":
        mask, *branches = args
        if is_number(mask):
            fields["u"] = Made(lambda chosen: int(chosen != 0), (mask,))
        else:
            fields["a"] = place(mask)
        fields |= _arguments(branches, "bc", place)
    elif op.startswith("row_"):
        fields |= {"a": place(args[0]), "c": scratch, "u": int(attributes["row"])}
    else:
        fields |= _arguments(args, "ab", place)
    return fields


def key_of(instruction: Instruction) -> int:
    """The key of a random mask, as a word."""
    return int(dict(instruction.attributes)["key"]) % (1 << 64)


def _arguments(args: Sequence[Argument], places: str, place: Callable[[Argument], int]) -> Fields:
    """Places of blocks, or x and y where there is a number."""
    named = zip(args, places, "xy", strict=False)
    return {n if is_number(a) else p: Made(float, (a,)) if is_number(a) else place(a) for a, p, n in named}


def _pattern(threshold: Threshold) -> int:
    return threshold.bits


def _cut(threshold: Threshold) -> int:
    return threshold.cut


def _extra(threshold: Threshold) -> int:
    return threshold.extra
