"""Windows of bit patterns, and what a round counts of one. Needs no torch."""

from __future__ import annotations

from ...grammar.records import dataclass
from .counting import DIGIT, Counts, LaneHistograms


@dataclass(frozen=True, slots=True)
class Window:
    """65,536 bins of 2^`shift` patterns each, from the pattern `first` on."""

    first: int
    shift: int


def everything(width: int) -> Window:
    """The window of all patterns of `width` bits."""
    return Window(0, width - DIGIT)


class Counting:
    """What lanes found of a window in a round.

    `histograms` has how many patterns each bin holds. How many lie above the window is known
    beforehand (`above`), or lanes say it of every block (`passed`). Where a bin is one pattern they
    may also `remember` which ones a chunk has.
    """

    def __init__(self, window: Window, above: int | None) -> None:
        self.window = window
        self.histograms = LaneHistograms()
        self._above = above
        self._passed: list[int] = []
        self._seen: dict[int, dict[int, int] | None] = {}

    def passed(self, count: int) -> None:
        """How many patterns of a block lie above the window."""
        self._passed.append(count)

    def remember(self, chunk: int, bins: dict[int, int] | None) -> None:
        """The bins of a chunk's elements that are in the window, counted; None where they are
        many."""
        self._seen[chunk] = bins

    @property
    def above(self) -> int:
        """How many patterns lie above the window."""
        return self._above if self._above is not None else sum(self._passed)

    def counts(self) -> Counts:
        """How many patterns each bin holds; taken once."""
        return self.histograms.take()

    def seen_of(self, bin_: int) -> dict[int, int] | None:
        """How many patterns of a bin every chunk has that has any of the window; None unless that
        is known of all."""
        found = {chunk: bins for chunk, bins in self._seen.items() if bins is not None}
        if not found or len(found) < len(self._seen):
            return None
        return {chunk: bins.get(bin_, 0) for chunk, bins in found.items()}
