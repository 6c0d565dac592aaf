"""What steps cost: bytes of scratch and of held buffers that are live, bytes of files that are read
and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..checkpoint.dtypes import SIZES
from .plan import Gather, Operand, Pass, Step, Stream, ToFile
from .scratch import scratch_layout


def read_bytes(operand: Operand) -> int:
    """The bytes of files that reading an operand once takes."""
    if isinstance(operand, Stream):
        return operand.numel * SIZES[operand.dtype]
    if isinstance(operand, Gather):
        size = SIZES[operand.sources[0].dtype] if operand.sources else 0
        return sum(run.rows * len(run.terms) for run in operand.runs) * operand.width * size
    return 0


def costed(step: Step, pass_: Pass, *, compute: str, device: str) -> Step:
    """A step that runs a pass, with what the pass costs: the scratch of all lanes that it can keep
    busy, its files."""
    accelerator = device != "cpu"
    layout = scratch_layout(pass_, compute=compute, accelerator=accelerator)
    busy = min(pass_.lanes, max(1, -(-pass_.numel // pass_.block)))
    return replace(
        step,
        action=replace(pass_, nbytes=layout.nbytes),
        host=busy * (layout.staging if accelerator else layout.nbytes),
        device=busy * layout.nbytes,
        reads=sum(read_bytes(o) for o in pass_.operands),
        writes=sum(pass_.numel * SIZES[s.dtype] for s in pass_.stores if isinstance(s, ToFile)),
    )


def live_bytes(steps: Sequence[Step]) -> list[int]:
    """The bytes of the held buffers that live at each step, from allocation to release."""
    out: list[int] = []
    sizes: dict[int, int] = {}
    for step in steps:
        sizes.update((a.buffer, a.nbytes) for a in step.allocate)
        out.append(sum(sizes.values()))
        for buffer in step.release:
            del sizes[buffer]
    return out


def with_liveness(steps: Sequence[Step], device: str) -> list[Step]:
    """The steps, which have the bytes of their own scratch, with those of the held buffers that
    live at each too."""
    if device == "cpu":
        return [_on(s, s.host + live, 0) for s, live in zip(steps, live_bytes(steps), strict=True)]
    return [_on(s, s.host, s.device + live) for s, live in zip(steps, live_bytes(steps), strict=True)]


def without_liveness(step: Step, live: int, device: str) -> Step:
    """The step with the bytes of its own scratch alone, `live` being those of the buffers that live
    at it."""
    return _on(step, step.host - live, step.device) if device == "cpu" else _on(step, step.host, step.device - live)


def _on(s: Step, host: int, device: int) -> Step:
    """The step with other bytes on the host and the device; the constructor, as there may be many
    steps."""
    return Step(s.action, s.allocate, s.release, s.tensor, host, device, s.reads, s.writes)
