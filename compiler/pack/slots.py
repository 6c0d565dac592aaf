"""Where bytes lie: of an output tensor in the files that are written, of a source in those that are
read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...grammar.records import dataclass
from ..checkpoint.dtypes import SIZES
from ..checkpoint.model import Model
from ..graph.graph import StoredRange
from ..plan.plan import Extent, Stream


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an output tensor's bytes go: output file and byte offset; and which stored tensor of
    the output it is."""

    file: int
    start: int
    tensor: int


class Origins:
    """Finds what is read in the plan's input files: `files` maps (model number, its file) to
    them."""

    def __init__(self, models: Sequence[Model], files: Mapping[tuple[int, int], int]) -> None:
        self._tensors = {m.number: m.checkpoint.tensors for m in models}
        self._files = files

    def stream(self, place: StoredRange, numel: int) -> Stream:
        """`numel` elements of a stored range."""
        size = SIZES[place.dtype]
        file, start = self.where(place.model, place.stored, place.first, size)
        return Stream(place.dtype, numel, (Extent(file, start, numel * size),))

    def where(self, model: int, stored: str, first: int, size: int) -> tuple[int, int]:
        """The input file and the byte at which element `first` of a stored tensor lies; `size` is
        an element's."""
        tensor = self._tensors[model][stored]
        return self._files[model, tensor.file], tensor.start + first * size
