"""Counts of 16-bit digits, gathered by several lanes at once: what selections by bit pattern go by."""

from __future__ import annotations

import threading

import numpy
import torch
from numpy.typing import NDArray

DIGIT = 16
"""Bits of a pattern that one round looks at."""

BINS = 1 << DIGIT


class LaneHistograms:
    """One histogram a lane, in the memory that the lane lends a reduction; joined at the end of a round."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[int, torch.Tensor] = {}

    def of(self, state: torch.Tensor) -> torch.Tensor:
        """The lane's counts (`BINS` of int64), zeroed when it first asks in a round."""
        key = state.data_ptr()
        histogram = self._states.get(key)
        if histogram is None:
            histogram = state[: 8 * BINS].view(torch.int64).zero_()
            with self._lock:
                self._states[key] = histogram
        return histogram

    def take(self) -> NDArray[numpy.int64]:
        """The counts of all lanes together; the next round begins at zero."""
        counts = numpy.zeros(BINS, numpy.int64)
        for histogram in self._states.values():
            counts += histogram.cpu().numpy()
        self._states.clear()
        return counts
