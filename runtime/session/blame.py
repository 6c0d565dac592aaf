"""Where infinities and NaNs of an output come from: which stored tensors of the inputs have some
themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...compiler.checkpoint.catalog import CatalogError
from ...compiler.plan.plan import Copy, Extent, Gather, Load, Pass, Plan, Stream
from ...grammar.diagnostic import MergecError, error
from ..catalog.weights import read_weights
from ..files.faults import show
from ..stream.interfaces import Reads
from ..stream.nonfinite import count_in

MOST_NAMED = 5
"""Tensors that are named, of the output and of the inputs."""


def non_finite_error(plan: Plan, reads: Reads, found: Mapping[str, int]) -> MergecError:
    """The error for an output in which infinities and NaNs were `found`, by tensor; reads the worst
    ones' inputs."""
    worst = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    notes = [f"{count:,} in `{show(name)}`" for name, count in worst[:MOST_NAMED]]
    if len(worst) > MOST_NAMED:
        notes.append(f"and in {len(worst) - MOST_NAMED} more")
    origins = _origins(plan, reads, {name for name, _ in worst[:MOST_NAMED]})
    notes += [f"of the inputs, `{show(path)}` has {count:,}{tensor}" for path, tensor, count in origins[:MOST_NAMED]]
    if origins:
        help = "mend that input, or leave it out there"
    else:
        help = "the inputs of these tensors have none: look for a weight that is too large, or take a wider `dtype`"
    return error(
        "E0614",
        f"infinities or NaNs in {len(found)} tensor{'s' if len(found) > 1 else ''} of the output",
        notes=notes,
        help=(help, "`mergec --explain RECIPE PLACE` shows a tensor's whole story"),
    )


def _origins(plan: Plan, reads: Reads, names: set[str]) -> list[tuple[str, str, int]]:
    """Path, tensor and count for every stored tensor with infinities or NaNs that is read for these
    of the output."""
    tensors = {k for k, tensor in enumerate(plan.tensors) if tensor.name in names}
    counts: dict[tuple[int, int], int] = {}
    for index, dtype, extent in dict.fromkeys(_reads(plan)):
        if index in tensors and (extent.file, extent.start) not in counts:
            counts[extent.file, extent.start] = count_in(extent, dtype, reads)
    return [
        (plan.inputs[file].path, _stored(plan.inputs[file].path, start), count)
        for (file, start), count in sorted(counts.items(), key=lambda item: -item[1])
        if count
    ]


def _reads(plan: Plan) -> Iterator[tuple[int, str, Extent]]:
    """What every step reads: index of the output tensor that it works for, dtype, where."""
    for step in plan.steps:
        streams: tuple[Stream, ...] = ()
        match step.action:
            case Copy() as copy:
                dtype = plan.tensors[step.tensor].dtype
                streams = (Stream(dtype, 0, copy.extents),)
            case Load() as load:
                streams = (load.source,)
            case Pass() as pass_:
                for operand in pass_.operands:
                    streams += operand.sources if isinstance(operand, Gather) else ()
                    streams += (operand,) if isinstance(operand, Stream) else ()
        for stream in streams:
            yield from ((step.tensor, stream.dtype, extent) for extent in stream.extents)


def _stored(path: str, start: int) -> str:
    """The tensor that lies at byte `start` of a file, as said in a sentence."""
    try:
        tensors = read_weights(path).tensors.values()
    except CatalogError:
        return ""
    return next((f" in `{show(t.name)}`" for t in tensors if t.start <= start < t.end), "")
