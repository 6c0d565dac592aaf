"""Counts of one 16-bit digit of bit patterns, for selections over several tensors."""

from __future__ import annotations

import numpy
import torch

from .selection import Selection
from .values import Result


class Digits(Selection):
    """A `Reducer` for `digits`: counts the digit at `shift` of the magnitudes that begin with `prefix`."""

    def __init__(self, prefix: int, shift: int, numel: int, dtype: torch.dtype) -> None:
        super().__init__(1, max(numel, 2), dtype)
        self._prefix, self._shift = prefix, shift
        self._counts: dict[int, int] | None = None

    @property
    def done(self) -> bool:
        return self._counts is not None

    def result(self) -> Result:
        assert self._counts is not None
        return self._counts

    def finish_round(self) -> None:
        found = self._histograms.take()
        used = numpy.flatnonzero(found)
        self._counts = dict(zip(used.tolist(), found[used].tolist(), strict=True))
