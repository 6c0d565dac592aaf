"""A plan for several devices, as one for each: they share the output's tensors out among them.

Each part is a plan of its own, with what its tensors need and nothing else (`prune.py`), so parts
need nothing of one another and the bytes are those of one device. What tensors of two parts need,
such as a number of the whole model, both of them compute.
"""

from __future__ import annotations

from dataclasses import replace

from .machine import devices_of
from .plan import Plan
from .prune import prune


def split(plan: Plan) -> tuple[Plan, ...]:
    """The parts of a plan that have work; the plan itself where it is for one device.

    Tensors go, the largest first, to the device with the fewest bytes to move so far.
    """
    devices = devices_of(plan.device)
    if len(devices) == 1:
        return (plan,)
    moved = [0] * len(plan.tensors)
    for step in plan.steps:
        moved[step.tensor] += step.reads + step.writes
    shares: list[set[int]] = [set() for _ in devices]
    loads = [0] * len(devices)
    for index in sorted(range(len(moved)), key=lambda k: -moved[k]):
        least = loads.index(min(loads))
        shares[least].add(index)
        loads[least] += moved[index]
    everything = range(len(plan.tensors))
    parts = [
        prune(replace(plan, device=device), [k for k in everything if k not in share])
        for device, share in zip(devices, shares, strict=True)
    ]
    return tuple(part for part in parts if part.steps)
