"""Which output tensor a byte of an output file belongs to."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from .plan import OutputTensor


class Owners:
    """Looks up tensors by their bytes; a store or a copy may be of a part of its tensor."""

    def __init__(self, tensors: Sequence[OutputTensor]) -> None:
        # a tensor of no bytes lies where the next one begins, so it is skipped
        order = sorted((t.file, t.start, k) for k, t in enumerate(tensors) if t.nbytes)
        self._starts = [(file, start) for file, start, _ in order]
        self._tensors = [k for _, _, k in order]

    def of(self, file: int, start: int) -> int | None:
        """The tensor, by its index in the plan, that byte `start` of weight file `file` belongs to:
        the last one that begins no later."""
        at = bisect.bisect_right(self._starts, (file, start)) - 1
        return self._tensors[at] if at >= 0 and self._starts[at][0] == file else None

    def within(self, file: int, start: int, nbytes: int) -> list[int]:
        """The tensors that bytes `[start, start + nbytes)` of weight file `file` belong to, in
        order."""
        first = bisect.bisect_right(self._starts, (file, start)) - 1
        last = bisect.bisect_left(self._starts, (file, start + nbytes))
        if first < 0 or self._starts[first][0] != file:
            first += 1
        return self._tensors[first:last]
