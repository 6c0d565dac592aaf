"""Counts of 16-bit digits in a lane's memory, on any device."""

from __future__ import annotations

import torch

from ..reduce.counting import BINS, Counts, LaneHistograms


def histogram_of(histograms: LaneHistograms, state: torch.Tensor) -> torch.Tensor:
    """The lane's counts (`BINS` of int64) in its `state`, zeroed when it first asks in a round."""
    counts = state[: 8 * BINS].view(torch.int64)

    def read() -> Counts:
        return counts.cpu().numpy()

    if histograms.enter(state.data_ptr(), read):
        counts.zero_()
    return counts
