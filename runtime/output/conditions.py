"""What must hold before anything is made: a folder to put the output in, inputs elsewhere,
space."""

from __future__ import annotations

import os
from contextlib import suppress

from ...compiler.plan.plan import Plan
from ...grammar.diagnostic import MergecError
from ..files.faults import file_fault, show, writing
from .trees import on_disk, within


def check_parent(target: str) -> None:
    """Sees that `target`, an absolute path, can be made. Raises MergecError E0602."""
    parent, name = os.path.split(target)
    if not name:
        raise file_fault("E0602", "the root folder can't be a target", target)
    if not os.path.isdir(parent):
        help = "make it first, or give another path"
        raise file_fault("E0602", f"no folder `{show(parent)}` to put the output in", target, help)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise file_fault("E0602", f"folder `{show(parent)}` is not writable", target)


def check_inputs(target: str, plan: Plan) -> None:
    """Sees that no input would be replaced, and that the output becomes no part of one. Raises
    MergecError E0603."""
    parent, name = os.path.split(target)
    own = os.path.join(os.path.realpath(parent), name)
    followed = os.path.realpath(target)
    for path in [*(i.path for i in plan.inputs), *(t.path for t in plan.tagalongs)]:
        for place in (os.path.abspath(path), os.path.realpath(path)):
            folder, name = os.path.split(place)
            checkpoint = os.path.realpath(folder)
            if os.path.join(checkpoint, name) in (own, followed):
                raise _not_apart(target, "is one of the inputs", place)
            if within(checkpoint, own) or within(checkpoint, followed):
                raise _not_apart(target, "holds one of the inputs", place)
            # where one of a folder's loose weight files is an input, the output may well lie next
            # to it
            if within(own, checkpoint) and os.path.exists(os.path.join(checkpoint, "config.json")):
                raise _not_apart(target, "lies in the folder of one of the inputs", place)
    for folder in plan.folders:
        # what lies there would be a part of that input the next time
        if within(own, os.path.realpath(folder)) or within(followed, os.path.realpath(folder)):
            raise _not_apart(target, "lies in one of the inputs", folder)


def _not_apart(target: str, what: str, place: str) -> MergecError:
    return file_fault("E0603", f"`{show(target)}` {what}: `{show(place)}`", target, "give a path outside the inputs")


def check_space(target: str, plan: Plan, made: str) -> None:
    """Sees that there is room for the output besides what is in the folder `made` already. Raises
    MergecError E0604."""
    parent = os.path.dirname(target)
    with writing(parent):
        status = os.statvfs(parent)
    needed = sum(output.size for output in plan.outputs)
    needed += sum(len(document.text.encode()) for document in plan.documents)
    for tagalong in plan.tagalongs:
        with suppress(OSError):  # the writer says so, with the file's name
            needed += os.stat(tagalong.path).st_size
    needed = max(0, needed - on_disk(made))
    free = status.f_bavail * status.f_frsize
    if needed > free:
        message = f"the output needs {_amount(needed)} and `{show(parent)}` has {_amount(free)} free"
        raise file_fault("E0604", message, target, "free some space, or give a path on another disk")


def _amount(nbytes: int) -> str:
    return f"{nbytes:,} bytes" if nbytes < 10_000_000 else f"{nbytes / 1e9:,.2f} GB"
